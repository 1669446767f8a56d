"""Batches of a stream as the inputs of a snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cumulant.core.ids import digest
from cumulant.core.plan import DType
from cumulant.data.files.inputs import SourceInput
from cumulant.data.files.listing import FileListing
from cumulant.data.files.reading import with_absent
from cumulant.data.row_columns import LATE
from cumulant.data.snapshot import RowRange
from cumulant.data.streams.records import StreamBatch, positions_after
from cumulant.data.text.csv_text import FileTable
from cumulant.ports.files import FileInfo
from cumulant.ports.streams import Messages

if TYPE_CHECKING:
    from cumulant.data.spec import SourceSpec
    from cumulant.ports.tables import TableStore


#: how messages are decoded and checked: another number where the same messages may give other rows
READING = 2
#: what the names of batches as files begin with
_PREFIX = "stream:"


def content_of(
    batch: Sequence[Messages], spec: SourceSpec, before: Mapping[str, int], known: Mapping[str, DType]
) -> str:
    """The digest of messages, of their place in the topic, and of what decides which of them become rows. `known`: the
    columns before them.
    """
    hashed = hashlib.sha256()
    for messages in batch:
        hashed.update(b"\n".join(value or b"" for value in messages.values))
    columns = sorted(known.items())
    declared = spec.reading_values() | ({} if spec.lateness is None else {"lateness": spec.lateness})
    return digest([READING, declared, columns, dict(before), positions_after(batch), hashed.hexdigest()])


def list_batches(topic: str, batches: Iterable[StreamBatch]) -> FileListing:
    """The batches with rows as the files of a source."""
    files = [
        FileInfo(f"{_PREFIX}{topic}/{batch.number:012d}", batch.rows.bytes, _stamp(batch.content, batch.rows))
        for batch in batches
        if batch.rows is not None
    ]
    return FileListing(files, [])


def last_batch(urls: Iterable[str]) -> int:
    """The number of the last batch among the files of a snapshot; 0 where it has none."""
    return max((int(url.rpartition("/")[2]) for url in urls if url.startswith(_PREFIX)), default=0)


def _stamp(content: str, rows: RowRange) -> str:
    """What the rows are, and where they lie; the second may change."""
    place = "" if rows.first is None else f" {rows.first} {rows.rows}"
    return f"{content} {rows.key}{place}"


def _of_stamp(file: FileInfo) -> tuple[str, RowRange]:
    content, key, *place = file.stamp.split(" ")
    first, rows = map(int, place) if place else (None, 0)
    return content, RowRange(key, rows, file.bytes, first)


def batch_inputs(listing: FileListing, spec: SourceSpec, tables: TableStore) -> list[SourceInput]:
    """The batches of a listing as the inputs of a snapshot. Declared paths were followed when they were ingested."""
    return [_input(file, spec, tables) for file in listing.files]


def _input(file: FileInfo, spec: SourceSpec, tables: TableStore) -> SourceInput:
    content, stored = _of_stamp(file)

    def rows(_: object) -> FileTable:
        return with_absent(FileTable(stored.scan(tables).drop(LATE, strict=False).collect()), spec)

    return SourceInput(file.url, content, file.bytes, file.stamp, guessed=True, rows=rows)

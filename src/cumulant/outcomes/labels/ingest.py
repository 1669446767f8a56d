"""Ingestion of labels: a file once by its content, on however many machines, and posted labels once by their part.

A file needs no lock: its batch is named by its content, and of one name there is one part. Of posts many become one
batch, so that `ingest_inbox` and `compact` are for one process at a time; the caller holds their lease.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import StorageError
from cumulant.core.ids import digest
from cumulant.outcomes.labels import label_files
from cumulant.outcomes.labels.batches import (
    MERGED,
    POSTED,
    IngestedFile,
    LabelBatches,
)
from cumulant.outcomes.labels.label_files import NumberedRows
from cumulant.outcomes.labels.label_rows import LabelReader, LabelRow, LabelSchema
from cumulant.outcomes.labels.store import FACTS, batch_writer, open_part
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.ports.log import UNDATED, Log, PartInfo

#: posts that become one batch, so that many small posts do not stay many small parts
_TOGETHER = 5_000


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a file. `again`: its content was ingested before, and nothing was added."""

    file: IngestedFile
    again: bool = False


def ingest_file(
    logs: OutcomeLogs,
    path: Path,
    schema: LabelSchema,
    *,
    names: Mapping[str, str] | None = None,
    salt: bytes = b"",
    source: str | None = None,
    clock: Clock | None = None,
) -> IngestResult:
    """Ingest a file of labels; all of it, or nothing. `source` stands for it where labels are shown; else its name.

    Raises:
        DataError: it cannot be read, or has no column that names predictions or the label.
        StorageError: it cannot be stored; nothing of it was.
    """
    content = label_files.content_hash(path)
    known = LabelBatches(logs.labels).find(content)
    if known is not None:
        return IngestResult(file=known, again=True)
    reader = LabelReader(schema, names or {}, salt, received=(clock or SystemClock()).now())
    batches = _check_columns(label_files.read_numbered_batches(path), reader, str(path))
    written = _store(logs.labels, content, source or path.name, batches, reader)
    stored = LabelBatches(logs.labels).find(content) or written
    return IngestResult(file=stored, again=stored != written)  # another process may have been faster


def ingest_inbox(
    logs: OutcomeLogs, schema: LabelSchema, *, salt: bytes = b"", clock: Clock | None = None
) -> list[IngestedFile]:
    """Ingest posted labels; a part of the inbox is deleted when its labels are stored.

    Raises:
        StorageError: as `ingest_file`.
    """
    ingested: list[IngestedFile] = []
    if waiting := _waiting(logs.inbox):
        with logs.inbox.maintenance():  # which deletes drafts of killed servers
            fresh = _without_ingested(logs, waiting)
            for first in range(0, len(fresh), _TOGETHER):
                posts = fresh[first : first + _TOGETHER]
                reader = LabelReader(schema, {}, salt, received=(clock or SystemClock()).now())
                identities = tuple(post.identity for post in posts)
                rows = label_files.number_rows(_read_posts(logs.inbox, posts))
                name = POSTED + digest(identities)[:32]
                ingested.append(_store(logs.labels, name, "posted", rows, reader, posts=identities))
                logs.inbox.delete([post.part for post in posts])
    compact(logs.labels)
    return ingested


def delete_ingested_posts(logs: OutcomeLogs) -> None:
    """Delete posts whose labels a killed process has stored. Raises StorageError."""
    if waiting := _waiting(logs.inbox):
        _without_ingested(logs, waiting)


def _without_ingested(logs: OutcomeLogs, waiting: list[_Post]) -> list[_Post]:
    done = _ingested_posts(logs.labels)
    logs.inbox.delete([post.part for post in waiting if post.identity in done])
    return [post for post in waiting if post.identity not in done]


class _Post(NamedTuple):
    """A part of the inbox. `identity`: its name and content, as the name may come again with other labels."""

    part: PartInfo
    identity: str


def _waiting(inbox: Log) -> list[_Post]:
    posts = []
    for part in inbox.parts(UNDATED):
        with suppress(FileNotFoundError), inbox.open(part) as stream:
            posts.append(_Post(part, f"{part.name} {hashlib.sha256(stream.read()).hexdigest()[:32]}"))
    return posts


def _ingested_posts(labels: Log) -> set[str]:
    """The posts of batches that were not merged: a killed process may have stored a batch and not deleted its posts."""
    batches = LabelBatches(labels)
    facts = (batches.find(name) for name in batches.names if name.startswith(POSTED))
    return {post for batch in facts if batch is not None for post in batch.posts}


def _read_posts(inbox: Log, posts: Iterable[_Post]) -> Iterator[list[object]]:
    for post in posts:
        with suppress(FileNotFoundError), inbox.open(post.part) as stream:
            yield from label_files.read_json_lines(stream)


def count_waiting(logs: OutcomeLogs) -> int:
    """How many posts are in the inbox."""
    return len(logs.inbox.parts(UNDATED))


def _check_columns(batches: Iterable[NumberedRows], reader: LabelReader, subject: str) -> Iterator[NumberedRows]:
    """The batches, after the first one's columns were checked."""
    first = True
    for batch in batches:
        if first:
            columns = {str(name) for row in batch.rows if isinstance(row, dict) for name in row}
            reader.check(sorted(columns), subject)
        first = False
        yield batch


def _store(
    labels: Log,
    content: str,
    name: str,
    batches: Iterable[NumberedRows],
    reader: LabelReader,
    *,
    posts: tuple[str, ...] = (),
) -> IngestedFile:
    rows, problems = 0, Counter[str]()
    with batch_writer(labels, content) as batch:
        for lines, raw_rows in batches:
            label_rows = reader.read(raw_rows)
            problems.update(fact.problem for fact in label_rows if fact.problem)
            batch.add(_columns(label_rows, name, lines, reader.received))
            rows += len(raw_rows)
        batch.facts = IngestedFile(
            name=name, content=content, received=reader.received, rows=rows, problems=dict(problems), posts=posts
        )
    return batch.facts


def _columns(rows: list[LabelRow], name: str, lines: Sequence[int], received: datetime) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = dict(zip(LabelRow._fields, map(list, zip(*rows, strict=True)), strict=True))
    columns["line"] = list(lines)
    columns["source"], columns["received"] = [name] * len(rows), [received] * len(rows)
    if set(columns) != set(FACTS.names):
        raise StorageError("a fact has not the columns of the store")
    return columns


#: batches of one level that become one of the next, so that a row is merged as often as the logarithm of their number
_MANY = 32
_ROWS = 200_000
#: seconds for which what was merged stays, at least
_GRACE = 60.0


def compact(labels: Log) -> int:
    """Merge where there are many batches of one level; returns how many were merged.

    Raises:
        StorageError: the log cannot be read or written; nothing is lost.
    """
    merged = 0
    for level in range(8):
        batches = LabelBatches(labels)
        # The name shows the level: facts are read of those that are merged.
        small = [name for name in batches.names if _level(name) == level]
        if len(small) < _MANY:
            break
        _merge(labels, batches, small, level + 1)
        merged += len(small)
    _delete_covered(labels)
    return merged


def _level(name: str) -> int:
    return int(name.removeprefix(MERGED).partition("-")[0]) if name.startswith(MERGED) else 0


def _merge(labels: Log, batches: LabelBatches, names: Sequence[str], level: int) -> None:
    ingested = [batch for name in names if (batch := batches.find(name)) is not None]
    content = f"{MERGED}{level}-{time.time_ns():020d}"
    problems = Counter[str]()
    for each in ingested:
        problems.update(each.problems)
    # A user's file is known for ever; a batch of posts, or a merged one, only until it is deleted.
    present = {part.life for part in labels.parts(UNDATED)}
    files = [
        part
        for each in ingested
        for part in each.covers
        if not part.content.startswith((MERGED, POSTED)) or part.content in present
    ]
    with batch_writer(labels, content) as writer:
        for table in _tables(labels, [batches.part(each.content) for each in ingested]):
            writer.add_table(table)
        writer.facts = IngestedFile(
            name="several",
            content=content,
            received=max(each.received for each in ingested),
            rows=sum(each.rows for each in ingested),
            problems=dict(problems),
            level=level,
            covers=(*files, *map(_without_parts, ingested)),
            made_of=tuple(each.content for each in ingested),
        )


def _tables(labels: Log, parts: Sequence[PartInfo]) -> Iterator[pa.Table]:
    gathered: list[pa.Table] = []
    for part in parts:
        with open_part(labels, part) as file:
            for group in range(file.num_row_groups):
                gathered.append(file.read_row_group(group).cast(FACTS))
                if sum(table.num_rows for table in gathered) >= _ROWS:
                    yield pa.concat_tables(gathered)
                    gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _without_parts(batch: IngestedFile) -> IngestedFile:
    return IngestedFile(
        name=batch.name, content=batch.content, received=batch.received, rows=batch.rows, problems=batch.problems
    )


def _delete_covered(labels: Log) -> None:
    """Delete covered batches, when readers that had listed them before the merge are done."""
    batches, old = LabelBatches(labels), time.time() - max(_GRACE, labels.grace)
    for merged in batches.merged:
        if batches.part(merged.content).modified <= old:
            labels.delete(batches.covered_parts(merged))

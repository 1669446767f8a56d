"""Ingestion of labels: a file once by its content, posted labels once by their file in the inbox."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import StorageError
from cumulant.outcomes.labels import label_files
from cumulant.outcomes.labels.label_files import NumberedRows
from cumulant.outcomes.labels.label_rows import LabelReader, LabelRow, LabelSchema
from cumulant.outcomes.labels.outcome_folder import (
    CLAIMED,
    INBOX,
    LABELS,
    MERGED,
    POSTED,
    IngestedFile,
    find_ingested,
    list_batches,
    list_merged,
    list_parts,
)
from cumulant.outcomes.labels.store import FACTS, BatchWriter, lock_folder, read_table, writing_to

#: files of the inbox that become one batch, so that many small posts do not stay many small files
_TOGETHER = 5_000
#: age of a server's draft that is abandoned
_DRAFT_SECONDS = 600.0


class IngestResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a file. `again`: its content was ingested before, and nothing was added."""

    file: IngestedFile
    again: bool = False


def ingest_file(
    folder: Path,
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
        LeaseHeldError: another process ingests labels.
    """
    content = label_files.content_hash(path)
    received = (clock or SystemClock()).now()
    reader = LabelReader(schema, names or {}, salt, received=received)
    with lock_folder(folder):
        known = find_ingested(folder, content)
        if known is not None:
            return IngestResult(file=known, again=True)
        batches = _check_columns(label_files.read_numbered_batches(path), reader, str(path))
        return IngestResult(file=_store(folder, content, source or path.name, batches, reader))


def ingest_inbox(
    folder: Path, schema: LabelSchema, *, salt: bytes = b"", clock: Clock | None = None
) -> list[IngestedFile]:
    """Ingest posted labels; a file of the inbox is deleted when it is in the store.

    Raises:
        StorageError, LeaseHeldError: as `ingest_file`.
    """
    ingested: list[IngestedFile] = []
    with lock_folder(folder):
        for claim in [*_claims(folder), *_claim_posts(folder)]:
            received = (clock or SystemClock()).now()
            known = find_ingested(folder, claim.name)
            if known is None:
                reader = LabelReader(schema, {}, salt, received=received)
                posts = (batch for path in sorted(claim.glob("*.jsonl")) for batch in label_files.read_batches(path))
                known = _store(folder, claim.name, "posted", label_files.number_rows(posts), reader)
                ingested.append(known)
            with writing_to(claim):
                shutil.rmtree(claim)
        _clear_drafts(folder)
        compact(folder)
    return ingested


def _clear_drafts(folder: Path) -> None:
    """Remove drafts of killed servers: no caller got a confirmation of them, and their keys are not hashed.

    One that is written all the same has its post refused, and posted again.
    """
    for path in (folder / INBOX).glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # it is whole by now
            if time.time() - path.stat().st_mtime > _DRAFT_SECONDS:
                path.unlink()


def count_waiting(folder: Path) -> int:
    """How many posts lie in the inbox."""
    return sum(1 for _ in (folder / INBOX).glob("*.jsonl"))


def _claims(folder: Path) -> list[Path]:
    """What an earlier process had claimed when it was killed; nothing is added to it, so that its name stays true."""
    return sorted(path for path in (folder / CLAIMED).glob("*") if path.is_dir())


def _claim_posts(folder: Path) -> Iterator[Path]:
    while names := sorted((folder / INBOX).glob("*.jsonl"))[:_TOGETHER]:
        claim = folder / CLAIMED / f"{POSTED}{time.time_ns():020d}"
        with writing_to(claim):
            claim.mkdir(parents=True)
            for path in names:
                path.rename(claim / path.name)
        yield claim


def _check_columns(batches: Iterable[NumberedRows], reader: LabelReader, subject: str) -> Iterator[NumberedRows]:
    """The batches, after the first one's columns were checked."""
    first = True
    for batch in batches:
        if first:
            columns = {str(name) for row in batch.rows if isinstance(row, dict) for name in row}
            reader.check(sorted(columns), subject)
        first = False
        yield batch


def _store(folder: Path, content: str, name: str, batches: Iterable[NumberedRows], reader: LabelReader) -> IngestedFile:
    rows, problems = 0, Counter[str]()
    with contextlib.ExitStack() as stack:
        batch = stack.enter_context(BatchWriter(folder, content))
        for lines, raw_rows in batches:
            label_rows = reader.read(raw_rows)
            problems.update(fact.problem for fact in label_rows if fact.problem)
            batch.add(_columns(label_rows, name, lines, reader.received))
            rows += len(raw_rows)
        ingested = IngestedFile(
            name=name, content=content, received=reader.received, rows=rows, problems=dict(problems)
        )
        batch.finish(ingested)
    return ingested


def _columns(rows: list[LabelRow], name: str, lines: Sequence[int], received: datetime) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = dict(zip(LabelRow._fields, map(list, zip(*rows, strict=True)), strict=True))
    columns["line"] = list(lines)
    columns["source"], columns["received"] = [name] * len(rows), [received] * len(rows)
    if set(columns) != set(FACTS.names):
        raise StorageError("a fact has not the columns of the store")
    return columns


#: batches of one level that become one of the next, so that a row is merged as often as the logarithm of their number
_MANY = 64
_ROWS = 200_000
#: seconds for which what was merged stays
_GRACE = 60.0


def compact(folder: Path) -> int:
    """Merge where there are many batches of one level; returns how many were merged. The caller holds the lock.

    Raises:
        StorageError: the store cannot be read or written; nothing is lost.
    """
    merged = 0
    for level in range(8):
        small = [
            batch
            for name in list_batches(folder)
            if (batch := find_ingested(folder, name)) is not None and batch.level == level
        ]
        if len(small) < _MANY:
            break
        _merge(folder, small, level + 1)
        merged += len(small)
    _remove(folder)
    return merged


def _merge(folder: Path, ingested: Sequence[IngestedFile], level: int) -> None:
    name = f"{MERGED}{level}-{time.time_ns():020d}"
    problems = Counter[str]()
    for each in ingested:
        problems.update(each.problems)
    # A user's file is known for ever; a batch of posts, or a merged one, only until it has gone.
    files = [
        part
        for each in ingested
        for part in each.covers
        if not part.content.startswith((MERGED, POSTED)) or (folder / LABELS / part.content).is_dir()
    ]
    covers = (*files, *map(_without_parts, ingested))
    merged = IngestedFile(
        name="several",
        content=name,
        received=max(each.received for each in ingested),
        rows=sum(each.rows for each in ingested),
        problems=dict(problems),
        level=level,
        covers=covers,
        made_of=tuple(each.content for each in ingested),
    )
    with BatchWriter(folder, name) as batch:
        for table in _tables(folder, ingested):
            batch.add_table(table)
        batch.finish(merged)


def _tables(folder: Path, ingested: Sequence[IngestedFile]) -> Iterator[pa.Table]:
    gathered: list[pa.Table] = []
    for batch in ingested:
        for path in list_parts(folder, batch.content):
            gathered.append(read_table(path).cast(FACTS))
            if sum(table.num_rows for table in gathered) >= _ROWS:
                yield pa.concat_tables(gathered)
                gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _without_parts(batch: IngestedFile) -> IngestedFile:
    return IngestedFile(
        name=batch.name, content=batch.content, received=batch.received, rows=batch.rows, problems=batch.problems
    )


def _remove(folder: Path) -> None:
    """Delete covered batches, when readers that had listed them before the merge are done."""
    for merged in list_merged(folder):
        if not _is_old(folder / LABELS / merged.content / "file.json"):
            continue
        for covered in merged.covers:
            path = folder / LABELS / covered.content
            if path.is_dir():
                with writing_to(path):
                    shutil.rmtree(path)


def _is_old(path: Path) -> bool:
    """Whether a file has lain there for a while; one that is gone, merged once more, has nothing left to remove."""
    try:
        return time.time() - path.stat().st_mtime >= _GRACE
    except FileNotFoundError:
        return False

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

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import StorageError
from cumulant.outcomes.labels import label_files
from cumulant.outcomes.labels.compaction import compact
from cumulant.outcomes.labels.label_files import NumberedRows
from cumulant.outcomes.labels.label_rows import LabelReader, LabelRow, LabelSchema
from cumulant.outcomes.labels.outcome_folder import CLAIMED, INBOX, POSTED, IngestedFile, find_ingested
from cumulant.outcomes.labels.store import FACTS, BatchWriter, lock_folder, writing_to

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

"""Taking labels in: a file once by its content, what a server was told once by its file in the inbox."""

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
from cumulant.outcomes.labels.label_rows import LabelSchema, Reader, Said
from cumulant.outcomes.labels.outcome_folder import CLAIMED, INBOX, POSTED, Ingested, ingested
from cumulant.outcomes.labels.store import FACTS, Batch, locked, writing_to

#: files of the inbox that become one batch, so that many small posts do not stay many small files
_TOGETHER = 5_000
#: age of a server's draft that nobody finishes any more
_DRAFT_SECONDS = 600.0


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a file. `again`: its content was taken in before, and nothing was added."""

    file: Ingested
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
) -> Taken:
    """Take in a file of labels; all of it, or nothing. `source` stands for it where labels are shown; else its name.

    Raises:
        DataError: it cannot be read, or has no column that names predictions or the label.
        StorageError: it cannot be stored; nothing of it was.
        LeaseHeldError: another process takes labels in.
    """
    content = label_files.content_hash(path)
    received = (clock or SystemClock()).now()
    reader = Reader(schema, names or {}, salt, received=received)
    with locked(folder):
        known = ingested(folder, content)
        if known is not None:
            return Taken(file=known, again=True)
        batches = _checked(label_files.numbered_batches(path), reader, str(path))
        return Taken(file=_store(folder, content, source or path.name, batches, reader))


def ingest_inbox(folder: Path, schema: LabelSchema, *, salt: bytes = b"", clock: Clock | None = None) -> list[Ingested]:
    """Take in what servers were told; a file of the inbox goes when it is in the store.

    Raises:
        StorageError, LeaseHeldError: as `ingest_file`.
    """
    found: list[Ingested] = []
    with locked(folder):
        for claim in [*_claims(folder), *_claiming(folder)]:
            received = (clock or SystemClock()).now()
            known = ingested(folder, claim.name)
            if known is None:
                reader = Reader(schema, {}, salt, received=received)
                posts = (batch for path in sorted(claim.glob("*.jsonl")) for batch in label_files.batches(path))
                known = _store(folder, claim.name, "posted", label_files.counted(posts), reader)
                found.append(known)
            with writing_to(claim):
                shutil.rmtree(claim)
        _clear_drafts(folder)
        compact(folder)
    return found


def _clear_drafts(folder: Path) -> None:
    """Remove what servers were writing when they were killed: nobody was told that it is kept, its keys are not hashed.

    One that is written all the same has its post refused, and posted again.
    """
    for path in (folder / INBOX).glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # it is whole by now
            if time.time() - path.stat().st_mtime > _DRAFT_SECONDS:
                path.unlink()


def waiting(folder: Path) -> int:
    """How many posts lie in the inbox."""
    return sum(1 for _ in (folder / INBOX).glob("*.jsonl"))


def _claims(folder: Path) -> list[Path]:
    """What an earlier process had claimed when it was killed; nothing is added to it, so that its name stays true."""
    return sorted(path for path in (folder / CLAIMED).glob("*") if path.is_dir())


def _claiming(folder: Path) -> Iterator[Path]:
    while names := sorted((folder / INBOX).glob("*.jsonl"))[:_TOGETHER]:
        claim = folder / CLAIMED / f"{POSTED}{time.time_ns():020d}"
        with writing_to(claim):
            claim.mkdir(parents=True)
            for path in names:
                path.rename(claim / path.name)
        yield claim


def _checked(batches: Iterable[NumberedRows], reader: Reader, subject: str) -> Iterator[NumberedRows]:
    """The batches, after the first one's columns were looked at."""
    first = True
    for batch in batches:
        if first:
            columns = {str(name) for row in batch.rows if isinstance(row, dict) for name in row}
            reader.check(sorted(columns), subject)
        first = False
        yield batch


def _store(folder: Path, content: str, name: str, batches: Iterable[NumberedRows], reader: Reader) -> Ingested:
    rows, problems = 0, Counter[str]()
    with contextlib.ExitStack() as stack:
        batch = stack.enter_context(Batch(folder, content))
        for lines, one in batches:
            said = reader.read(one)
            problems.update(fact.problem for fact in said if fact.problem)
            batch.add(_columns(said, name, lines, reader.received))
            rows += len(one)
        told = Ingested(name=name, content=content, received=reader.received, rows=rows, problems=dict(problems))
        batch.finish(told)
    return told


def _columns(said: list[Said], name: str, lines: Sequence[int], received: datetime) -> dict[str, list[object]]:
    found: dict[str, list[object]] = dict(zip(Said._fields, map(list, zip(*said, strict=True)), strict=True))
    found["line"] = list(lines)
    found["source"], found["received"] = [name] * len(said), [received] * len(said)
    if set(found) != set(FACTS.names):
        raise StorageError("a fact has not the columns of the store")
    return found

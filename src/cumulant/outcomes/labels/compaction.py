"""Compaction of small batches of labels: what is posted every second for a month must be read in a moment."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from cumulant.outcomes.labels.outcome_folder import (
    LABELS,
    MERGED,
    POSTED,
    IngestedFile,
    find_ingested,
    list_batches,
    list_merged,
    list_parts,
)
from cumulant.outcomes.labels.store import FACTS, BatchWriter, read_table, writing_to

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

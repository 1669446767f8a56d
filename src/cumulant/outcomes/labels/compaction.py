"""Many small batches of labels become few: what is posted every second for a month must be read in a moment."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from cumulant.outcomes.labels.outcome_folder import LABELS, MERGED, POSTED, Ingested, batches, ingested, merges, parts
from cumulant.outcomes.labels.store import FACTS, Batch, read_table, writing_to

#: batches of one level that become one of the next, so that a row is merged as often as the logarithm of their number
_MANY = 64
_ROWS = 200_000
#: seconds for which what was merged stays
_GRACE = 60.0


def compact(folder: Path) -> int:
    """Merge where there are many batches of one level, and say how many were merged. The caller holds the lock.

    Raises:
        StorageError: the store cannot be read or written; nothing is lost.
    """
    merged = 0
    for level in range(8):
        found = [one for name in batches(folder) if (one := ingested(folder, name)) is not None and one.level == level]
        if len(found) < _MANY:
            break
        _merge(folder, found, level + 1)
        merged += len(found)
    _remove(folder)
    return merged


def _merge(folder: Path, found: Sequence[Ingested], level: int) -> None:
    name = f"{MERGED}{level}-{time.time_ns():020d}"
    problems = Counter[str]()
    for one in found:
        problems.update(one.problems)
    # A user's file is known for ever; a batch of posts, or a merged one, only until it has gone.
    files = [
        part
        for one in found
        for part in one.covers
        if not part.content.startswith((MERGED, POSTED)) or (folder / LABELS / part.content).is_dir()
    ]
    covers = (*files, *map(_bare, found))
    told = Ingested(
        name="several", content=name, received=max(one.received for one in found), rows=sum(one.rows for one in found),
        problems=dict(problems), level=level, covers=covers,
        made_of=tuple(one.content for one in found),
    )  # fmt: skip
    with Batch(folder, name) as batch:
        for table in _tables(folder, found):
            batch.add_table(table)
        batch.finish(told)


def _tables(folder: Path, found: Sequence[Ingested]) -> Iterator[pa.Table]:
    gathered: list[pa.Table] = []
    for one in found:
        for path in parts(folder, one.content):
            gathered.append(read_table(path).cast(FACTS))
            if sum(table.num_rows for table in gathered) >= _ROWS:
                yield pa.concat_tables(gathered)
                gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _bare(one: Ingested) -> Ingested:
    return Ingested(name=one.name, content=one.content, received=one.received, rows=one.rows, problems=one.problems)


def _remove(folder: Path) -> None:
    """What is covered goes, when those who had listed it before it was merged have read it."""
    for merged in merges(folder):
        if not _old(folder / LABELS / merged.content / "file.json"):
            continue
        for one in merged.covers:
            path = folder / LABELS / one.content
            if path.is_dir():
                with writing_to(path):
                    shutil.rmtree(path)


def _old(path: Path) -> bool:
    """Whether a file has lain there for a while; one that is gone, merged once more, has nothing left to remove."""
    try:
        return time.time() - path.stat().st_mtime >= _GRACE
    except FileNotFoundError:
        return False

"""Progress of the join: which labels and which files of the prediction log were read.

Lost or old, files are read a second time and nothing else: joined rows are recognized by themselves.
"""

from __future__ import annotations

import contextlib
from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from cumulant.core.errors import StorageError
from cumulant.outcomes.labels.atomic_files import write_bytes
from cumulant.outcomes.labels.store import read_table, write_table, writing_to

_FILE, _HALVES = "progress.json", "halves.parquet"
#: a mirrored row whose other half has not come for so long will not get one
_PATIENCE = timedelta(days=1)


class JoinProgress(msgspec.Struct, kw_only=True):
    """`files`: by day and life of a log process, the numbers of its parts that were read, as intervals."""

    batches: set[str] = set()
    files: dict[str, list[tuple[int, int]]] = {}
    #: when the first of the labels that lie in the future is known
    next_due: datetime | None = None
    #: up to which numbers labels and pairs were read for losses
    graded_labels: int = 0
    graded_pairs: int = 0
    #: mirrored rows that stay without a pair
    alone: int = 0

    def is_read(self, day: date, life: str, first: int, last: int) -> bool:
        return any(low <= first and last <= high for low, high in self.files.get(f"{day}/{life}", ()))

    def mark_read(self, day: date, life: str, first: int, last: int) -> None:
        spans = sorted([*self.files.get(f"{day}/{life}", ()), (first, last)])
        joined: list[tuple[int, int]] = []
        for low, high in spans:
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        self.files[f"{day}/{life}"] = joined

    def halves(self, folder: Path) -> pl.DataFrame:
        """Mirrored rows that wait for their other half; without columns where there are none."""
        if (folder / _HALVES).exists():
            with contextlib.suppress(StorageError):
                rows = pl.from_arrow(read_table(folder / _HALVES))
                if isinstance(rows, pl.DataFrame) and rows.height:
                    return rows
        return pl.DataFrame()

    def keep_halves(self, folder: Path, halves: pl.DataFrame, now: datetime) -> None:
        """Raises StorageError."""
        recent = halves.filter(pl.col("time") > now - _PATIENCE)
        self.alone += halves.height - recent.height
        with writing_to(folder):
            write_table(folder / _HALVES, recent.to_arrow())


def read_progress(folder: Path) -> JoinProgress:
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=JoinProgress)
    except (OSError, msgspec.MsgspecError):
        return JoinProgress()


def write_progress(folder: Path, progress: JoinProgress) -> None:
    """Raises OSError."""
    write_bytes(folder / _FILE, msgspec.json.encode(progress))

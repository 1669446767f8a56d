"""Mirrored scores: set aside on disk where they are many, and read for some rows at a time."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.data.parts.collected_frames import CollectedFrames
from cumulant.data.parts.spill import Spill

#: rows that are read at once
_PART = 65_536


class MirroredRows:
    """Mirrored rows of the log, in its order, by an index of 16 bytes a row.

    Raises:
        StorageError: rows cannot be stored.
    """

    def __init__(self, spill: Spill) -> None:
        self._collected = CollectedFrames(spill, "mirrored")
        self._hashes: list[NDArray[np.uint64]] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows with the columns `id`, `row`, `outputs` and `score`."""
        self._collected.add(rows)
        self._hashes.append(_hashes(rows))

    def finish(self) -> MirroredIndex | None:
        """What finds them, once all were added; None where there are none."""
        if self._collected.is_empty:
            return None
        return MirroredIndex(self._collected.rows(), np.concatenate(self._hashes))


class MirroredIndex:
    """Finds `rows` by request and number: [rows] `hashes` of them."""

    def __init__(self, rows: pl.LazyFrame, hashes: NDArray[np.uint64]) -> None:
        self._rows = rows
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def of(self, answered: pl.DataFrame) -> pl.DataFrame:
        """The mirrored rows of these answered ones (`id`, `row`), and maybe others, in the order of the log."""
        wanted = np.unique(_hashes(answered))
        begin, end = (np.searchsorted(self._sorted, wanted, side=side) for side in ("left", "right"))
        runs = [self._order[first:last] for first, last in zip(begin, end, strict=True) if last > first]
        places = np.sort(np.concatenate(runs)) if runs else np.empty(0, dtype=np.int64)
        parts = [self._rows.clear().collect()]
        for part in np.unique(places // _PART):
            own = places[places // _PART == part] - part * _PART
            parts.append(self._rows.slice(int(part) * _PART, _PART).collect()[own])
        return pl.concat(parts)


def _hashes(rows: pl.DataFrame) -> NDArray[np.uint64]:
    return rows.select(pl.struct(pl.col("id"), pl.col("row").cast(pl.Int64)).hash()).to_series().to_numpy()

"""The answered rows of an evaluation, window by window: in memory while they are few, else set aside on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property

import polars as pl

from cumulant.core.units import from_micros, micros
from cumulant.data.parts.spill import Spill
from cumulant.monitoring.performance.rows import PredictionWindow
from cumulant.monitoring.tables import MOMENT
from cumulant.outcomes.labels.label_snapshot import window_parts

#: rows that are held in memory, some 100 bytes each, since a file for each short window takes time; and those that are
#: read at once where windows are shorter
_HELD, _TOGETHER = 1_000_000, 262_144
_FILE, _START = "__file", "__start"


class ScoredRows:
    """Rows in windows of `length`, counted from 1970; oldest first, and of one moment in the order of the log.

    In memory are the rows of some windows, and those of one file of the log.
    """

    def __init__(self, spill: Spill, name: str, length: timedelta, *, since: datetime, until: datetime) -> None:
        self._spill, self._name, self._length = spill, name, length
        self._within = pl.col(MOMENT).is_between(since, until, closed="left")
        self._held: list[pl.DataFrame] = []
        self._rows = 0
        #: rows of each window that is on disk, by its start in microseconds
        self._on_disk: Counter[int] = Counter()

    def add(self, number: int, frame: pl.DataFrame) -> None:
        """Add the rows of the file of this number with a moment in [since, until).

        Raises:
            StorageError: they cannot be stored.
        """
        step = micros(self._length)
        start = pl.col(MOMENT).dt.epoch("us") // step * step
        file = pl.lit(number, pl.Int64)
        self._held.append(frame.filter(self._within).with_columns(file.alias(_FILE), start.alias(_START)))
        self._rows += self._held[-1].height
        if self._rows > _HELD:
            self._set_aside()

    def _set_aside(self) -> None:
        for (start,), rows in pl.concat(self._held).partition_by(_START, include_key=False, as_dict=True).items():
            assert isinstance(start, int)
            self._spill.append(f"{self._name}.{start}", rows)
            self._on_disk[start] += rows.height
        self._held, self._rows = [], 0

    def windows(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[tuple[PredictionWindow, pl.DataFrame]]:
        """Each window that holds a row with a moment in [since, until), and those rows. Raises StorageError."""
        for start in self._starts:
            window = PredictionWindow(from_micros(start), from_micros(start) + self._length)
            if (since is not None and window.end <= since) or (until is not None and window.start >= until):
                continue
            rows = self._window(start)
            if since is not None and since > window.start:
                rows = rows.filter(pl.col(MOMENT) >= since)
            if until is not None and until < window.end:
                rows = rows.filter(pl.col(MOMENT) < until)
            if rows.height:
                yield window, rows

    def groups(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[list[tuple[PredictionWindow, pl.DataFrame]]]:
        """As `windows`, short ones together: what reads the log reads it for a group."""
        return window_parts(self.windows(since, until), min(_HELD, _TOGETHER), frame=lambda pair: pair[1])

    @cached_property
    def _starts(self) -> list[int]:
        """Of each window its start; no rows may be added afterwards."""
        if self._on_disk and self._held:
            self._set_aside()
        return sorted(self._on_disk or self._in_memory)

    @cached_property
    def _in_memory(self) -> dict[int, pl.DataFrame]:
        if not self._rows:
            return {}
        rows = _sorted(pl.concat(self._held))
        self._held = []
        frames, begin = {}, 0
        for start, count in rows[_START].rle().struct.unnest().select("value", "len").iter_rows():
            frames[start] = rows.slice(begin, count).drop(_FILE, _START)
            begin += count
        return frames

    def _window(self, start: int) -> pl.DataFrame:
        if not self._on_disk:
            return self._in_memory[start]
        return _sorted(pl.concat(self._spill.appended(f"{self._name}.{start}"))).drop(_FILE)


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.sort(MOMENT, _FILE, maintain_order=True)

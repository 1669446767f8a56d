"""The days of a prediction log as stored profiles: a counted day is read again only when its files change.

    STATE/monitoring/profiles/REFERENCE/reference      rows and cells of the reference
    STATE/monitoring/profiles/REFERENCE/2026-11-24     counts of the rows that were logged on that day

Every file begins with a digest of its content; a damaged one is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import CumulantError, DataError
from cumulant.core.ids import digest
from cumulant.core.units import from_micros, micros, to_micros
from cumulant.flows.monitoring.drift.window_counts import (
    ModelTraffic,
    TableWindows,
    as_flags,
    every_role,
    flags,
    traffic_of,
)
from cumulant.flows.monitoring.result_cache import ResultCache, remove_oldest
from cumulant.monitoring.drift.blocks import MOST, by_time
from cumulant.monitoring.drift.profiles import ColumnCells, DriftProfile, ProfileBlock, merge, only
from cumulant.monitoring.tables import ANSWER, MOMENT, PredictionTable, none_is_past, open_log, open_table, readable

if TYPE_CHECKING:
    from cumulant.data.parts.spill import Spill
    from cumulant.monitoring.drift.profiles import Role
    from cumulant.statistics.rows import Codes

#: days of rows in memory at most: a week, and the days that it ends in
_HELD = 9
_EPOCH, _DAY = date(1970, 1, 1), timedelta(days=1)
#: the quantile of the lags of the days that a look waits for
_USUAL = 0.9
_NO_CELLS = ColumnCells(kind="category")


class _Day(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one day in the reference's cells. `of`: what it was made from.

    `traffic`: windows of the rows of all versions of the model, of one version's log. `misdated`, `coming`: as in
    `Windows`.
    """

    of: str
    traffic: tuple[ProfileBlock, ...]
    columns: tuple[str, ...] = ()
    others: int = 0
    misdated: int = 0
    coming: int = 0
    profile: DriftProfile | None = None


def _by(of: tuple[str, str] | None) -> str:
    return "" if of is None else f"of {of[0]}/{of[1]} "


def _head(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@dataclass(frozen=True)
class LogWindows:
    """A log whose days are counted one at a time, and stored, against one reference. `of`: a model and version.

    `before`: rows of that moment and later are left out, as are windows that begin after `now`; such days are not
    stored. `skew`, `spill`: as in `open_log`.
    """

    folder: Path
    reference: TableWindows
    cache: ResultCache
    length: timedelta
    since: date | None = None
    until: date | None = None
    of: tuple[str, str] | None = None
    before: datetime | None = None
    skew: timedelta | None = None
    now: datetime | None = None
    spill: Spill | None = None
    time: str | None = MOMENT
    is_log: bool = True
    #: days that were read anew, oldest first
    fresh: list[date] = field(default_factory=list)
    #: days whose rows are in memory: findings read the same windows
    _held: dict[date, PredictionTable] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"the log {self.folder}"

    @cached_property
    def _before(self) -> DriftProfile:
        profile = self.cache.read("reference", DriftProfile)
        if profile is None:
            profile = self.reference.profile(every_role(self.reference.table))
            self.cache.write("reference", profile)
        return profile

    @cached_property
    def _days(self) -> dict[date, _Day]:
        """The days that have rows.

        Raises:
            DataError: none has, or they fall into too many windows.
            ContractBreachError: none has, as all rows are misdated.
            StorageError: a file of the log is damaged.
        """
        from cumulant.serving.prediction_log.storage.log_reader import iterate_files

        files: dict[date, list[list[object]]] = {}
        for file, _ in iterate_files(self.folder, since=self.since, until=self.until):
            with contextlib.suppress(FileNotFoundError):  # merged meanwhile: the day is read as it is then
                stat = file.path.stat()
                files.setdefault(file.day, []).append([file.path.name, stat.st_size, stat.st_mtime_ns])
        of, flagged = _head(msgspec.msgpack.encode(self._before)).hex(), flags(self.reference.table)
        days: dict[date, _Day] = {}
        for day, listed in files.items():
            days[day] = self._cut_off(day, self._day(day, digest([of, sorted(listed, key=str)]), flagged), flagged)
        remove_oldest(self.cache.root, self.cache.folder.name)
        if not any(counts.profile is not None for counts in days.values()):
            # Says what there is instead.
            open_table(self.folder, since=self.since, until=self.until, of=self.of, spill=self.spill)
            raise self._no_rows(days.values())
        return days

    def _no_rows(self, days: Collection[_Day]) -> CumulantError:
        misdated, coming = sum(counts.misdated for counts in days), sum(counts.coming for counts in days)
        if misdated or (coming and self.before is None):
            return none_is_past(self.folder, self.of, misdated=misdated, coming=coming)
        return DataError(
            f"no prediction {_by(self.of)}in {self.name} is of before {self._end:%Y-%m-%d %H:%M}",
            subject=str(self.folder),
            hint="give a later moment: a look is at the version that serves now",
        )

    @cached_property
    def _end(self) -> datetime:
        """Rows of this moment and later are left out."""
        if self.before is not None:
            return self.before
        length = micros(self.length)
        return from_micros((to_micros(self.now or datetime.now(UTC)) // length + 1) * length)

    def _cut_off(self, day: date, counts: _Day, flagged: frozenset[str]) -> _Day:
        """The day without what is not of before the end."""
        blocks = counts.traffic if counts.profile is None else (*counts.profile.blocks, *counts.traffic)
        if not blocks:
            return counts
        end, length = to_micros(self._end), micros(self.length)
        if all(block.start + length <= end for block in blocks):
            return counts
        if all(block.start >= end for block in blocks):
            return _Day(of=counts.of, traffic=(), others=counts.others, misdated=counts.misdated, coming=_rows(counts))
        return self._counted(day, counts.of, flagged, before=self._end)

    def _day(self, day: date, of: str, flagged: frozenset[str]) -> _Day:
        stored = self.cache.read(str(day), _Day)
        if stored is not None and stored.of == of:
            return _with_cells(stored, self._before)
        self.fresh.append(day)
        try:
            counts = self._counted(day, of, flagged)
        except DataError:  # more windows than a look may have: those that are past may be fewer
            return self._counted(day, of, flagged, before=self._end)
        self.cache.write(str(day), _without_cells(counts))
        return counts

    def _counted(self, day: date, of: str, flagged: frozenset[str], before: datetime | None = None) -> _Day:
        with contextlib.nullcontext() if self.spill is None else self.spill.within(f"{day}.counted") as spill:
            table = open_log(self.folder, since=day, until=day, of=self.of, skew=self.skew, spill=spill)
            return self._count(table, of, flagged, before)

    def _count(self, table: PredictionTable, of: str, flagged: frozenset[str], before: datetime | None) -> _Day:
        misdated, coming = sum(table.misdated.values()), 0
        if table.columns and before is not None:
            past = replace(table, rows=table.rows.filter(pl.col(MOMENT) < before))
            table, coming = past, table.count() - past.count()
        traffic = traffic_of(table, self.length, before)
        if not table.columns or not table.count():
            return _Day(of=of, traffic=traffic, others=table.others, misdated=misdated, coming=coming)
        lacking = [column.name for column in self._before.columns if column.name not in table.columns]
        full = table.rows.with_columns(pl.lit(None).alias(name) for name in lacking)
        cut = by_time(table.parts(MOMENT), self.length)
        from cumulant.monitoring.drift.profiling import profile as drift_profile

        profile = drift_profile(as_flags(replace(table, rows=full), flagged).rows, {}, cut=cut, like=self._before)
        return _Day(
            of=of,
            traffic=traffic,
            columns=table.columns,
            others=table.others,
            misdated=misdated,
            coming=coming,
            profile=profile,
        )

    @cached_property
    def _merged(self) -> DriftProfile:
        merged = merge([counts.profile for counts in self._days.values() if counts.profile is not None])
        if len(merged.blocks) > MOST:
            raise DataError(
                f"the rows fall into {len(merged.blocks):,} windows",
                subject=self.name,
                hint="choose a longer window, and look whether the times are right",
            )
        return merged

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for counts in self._days.values() for name in counts.columns))

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name.startswith(ANSWER))

    @property
    def others(self) -> int:
        return sum(counts.others for counts in self._days.values())

    @property
    def misdated(self) -> Mapping[date, int]:
        return {day: counts.misdated for day, counts in self._days.items()}

    @property
    def coming(self) -> int:
        """Rows that are not counted yet; none where a past period is evaluated."""
        return 0 if self.before is not None else sum(counts.coming for counts in self._days.values())

    def traffic(self) -> ModelTraffic | None:
        if self.of is None:
            return None
        counts, length = Counter[int](), micros(self.length)
        lags = []
        for day, day_counts in self._days.items():
            counts.update({block.start: block.rows for block in day_counts.traffic})
            if day_counts.traffic:
                end = (day - _EPOCH).days * micros(_DAY) + micros(_DAY)
                lags.append(end - day_counts.traffic[-1].start - length)
        windows = tuple(ProfileBlock(*pair, timed=True) for pair in sorted(counts.items()))
        return ModelTraffic(windows, _usual_lag(lags[:-1]))

    def against(self, reference: TableWindows, roles: Mapping[str, Role]) -> tuple[DriftProfile, DriftProfile]:
        assert reference is self.reference
        return only(self._before, roles), only(self._merged, roles)

    def rows(self, names: Sequence[str], first: int, last: int) -> tuple[pl.DataFrame, Codes | None]:
        starts = np.array([block.start for block in self._merged.blocks], dtype=np.int64)
        low, high = int(starts[first]), int(starts[last]) + micros(self.length)
        high = min(high, to_micros(self._end))
        parts = list(self._parts(names, low, high))
        if not parts:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.Null)), np.zeros(0, dtype=np.int64)
        rows = pl.concat(parts, how="vertical_relaxed")
        codes = np.searchsorted(starts, rows[_AT].to_numpy(), side="right") - 1
        return rows.drop(_AT), codes.astype(np.int64)

    def _parts(self, names: Sequence[str], low: int, high: int) -> Iterator[pl.DataFrame]:
        """Rows from `low` to before `high`, in microseconds, of the days that have any."""
        flagged = flags(self.reference.table)
        for day, counts in self._days.items():
            if counts.profile is None or not any(low <= block.start < high for block in counts.profile.blocks):
                continue
            table = as_flags(self._opened(day), flagged)
            columns = [pl.col(name) if name in table.columns else pl.lit(None).alias(name) for name in names]
            with readable(self.name):
                part = table.rows.select(*columns, pl.col(MOMENT).dt.epoch("us").alias(_AT)).collect()
            yield part.filter(pl.col(_AT).is_between(low, high, closed="left"))

    def _opened(self, day: date) -> PredictionTable:
        if day not in self._held:
            if len(self._held) >= _HELD:
                self._let_go(next(iter(self._held)))
            self._held[day] = open_table(
                self.folder, since=day, until=day, of=self.of, skew=self.skew, spill=self.spill, name=str(day)
            )
        return self._held[day]

    def _let_go(self, day: date) -> None:
        del self._held[day]
        if self.spill is not None:
            self.spill.delete([str(day), f"{day}.moments"])


def _rows(day: _Day) -> int:
    return 0 if day.profile is None else day.profile.rows


def _usual_lag(lags: Sequence[int]) -> int:
    """The lag that a tenth of the days exceed at most: one day of an outage or of old rows sets none."""
    return max(sorted(lags)[int(_USUAL * len(lags))], 0) if lags else 0


_AT = "\0at"


def _without_cells(day: _Day) -> _Day:
    return _celled(day, {})


def _with_cells(day: _Day, reference: DriftProfile) -> _Day:
    return _celled(day, {column.name: column.cells for column in reference.columns})


def _celled(day: _Day, cells: Mapping[str, ColumnCells]) -> _Day:
    if day.profile is None:
        return day
    columns = (
        msgspec.structs.replace(column, cells=cells.get(column.name, _NO_CELLS)) for column in day.profile.columns
    )
    return msgspec.structs.replace(day, profile=msgspec.structs.replace(day.profile, columns=tuple(columns)))


def answer_columns(folder: Path) -> frozenset[str]:
    """The columns of the newest answers of a log."""
    from cumulant.serving.prediction_log.storage.log_reader import recent_predictions

    texts = (entry.outputs for entry in recent_predictions(folder, limit=20))
    columns: set[str] = set()
    for text in texts:
        with contextlib.suppress(msgspec.MsgspecError):
            outputs = msgspec.json.decode(text)
            columns |= {ANSWER + name for name in outputs} if isinstance(outputs, dict) else set()
    return frozenset(columns)


def content_of(path: Path) -> list[list[object]]:
    """Names, sizes and times of a file, or of the files of a folder, glob or log."""
    if path.is_dir():
        files = [*path.glob("*.parquet"), *path.glob("date=*/*.parquet")]
    else:
        files = [*path.parent.glob(path.name)]
    return sorted([str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files)

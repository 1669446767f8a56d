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
from cumulant.monitoring.drift.profiles import ColumnCells, DriftProfile, ProfileBlock, Role, merge, only
from cumulant.monitoring.tables import ANSWER, MOMENT, PredictionTable, none_is_past, open_log, open_table, readable
from cumulant.ports.log import Log, current_parts

if TYPE_CHECKING:
    from cumulant.data.parts.spill import Spill
    from cumulant.statistics.rows import Codes

#: days of rows in memory at most: a week, and the days that it ends in
_HELD = 9
_EPOCH, _DAY = date(1970, 1, 1), timedelta(days=1)
#: the quantile of the lags of the days that a look waits for
_USUAL = 0.9
_NO_CELLS = ColumnCells(kind="category")
_AT = "\0at"


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


@dataclass(frozen=True, kw_only=True)
class LogSource:
    """Rows of a log in windows of `length`. `of`: a model and version; `skew`, `spill`: as in `open_log`.

    `before`: rows of that moment and later are left out, as are windows that begin after `now`; such days are not
    stored.
    """

    log: Log
    length: timedelta
    since: date | None = None
    until: date | None = None
    of: tuple[str, str] | None = None
    before: datetime | None = None
    skew: timedelta | None = None
    now: datetime | None = None
    spill: Spill | None = None

    @property
    def name(self) -> str:
        return f"the log {self.log.location}"

    def end(self) -> datetime:
        """The moment from which on rows are left out."""
        if self.before is not None:
            return self.before
        length = micros(self.length)
        return from_micros((to_micros(self.now or datetime.now(UTC)) // length + 1) * length)


def load_log_windows(source: LogSource, reference: TableWindows, cache: ResultCache) -> LogWindows:
    """The counts of the reference and of the log's days that have rows, read from the cache or counted and stored.

    Raises:
        DataError: no day has rows, or they fall into too many windows.
        ContractBreachError: no day has rows, as all rows are misdated.
        StorageError: a file of the log is damaged.
    """
    before = cache.read("reference", DriftProfile)
    if before is None:
        before = reference.profile(every_role(reference.table))
        cache.write("reference", before)
    name = hashlib.sha256(msgspec.msgpack.encode(before)).hexdigest()
    counter = _DayCounter(source, cache, before, name, flags(reference.table), source.end())
    days = {day: counter.past(day, files) for day, files in _files_by_day(source).items()}
    remove_oldest(cache.root, cache.folder.name)
    profiles = [counts.profile for counts in days.values() if counts.profile is not None]
    if not profiles:
        # Reports what there is instead.
        open_table(source.log, since=source.since, until=source.until, of=source.of, spill=source.spill)
        raise _no_rows(source, counter.end, days.values())
    merged = merge(profiles)
    if len(merged.blocks) > MOST:
        raise DataError(
            f"the rows fall into {len(merged.blocks):,} windows",
            subject=source.name,
            hint="choose a longer window, and check whether the times are right",
        )
    columns = tuple(dict.fromkeys(name for counts in days.values() for name in counts.columns))
    return LogWindows(source, reference, before, days, merged, counter.end, columns, counter.fresh)


def _files_by_day(source: LogSource) -> dict[date, list[list[object]]]:
    """Names and stamps of the log's parts."""
    files: dict[date, list[list[object]]] = {}
    for part in current_parts(source.log, source.since, source.until):
        files.setdefault(part.day, []).append([part.name, part.stamp])
    return files


def _no_rows(source: LogSource, end: datetime, days: Collection[_Day]) -> CumulantError:
    misdated, coming = sum(counts.misdated for counts in days), sum(counts.coming for counts in days)
    if misdated or (coming and source.before is None):
        return none_is_past(source.log, source.of, misdated=misdated, coming=coming)
    by = "" if source.of is None else f"of {source.of[0]}/{source.of[1]} "
    return DataError(
        f"no prediction {by}in {source.name} is of before {end:%Y-%m-%d %H:%M}",
        subject=source.log.location,
        hint="give a later moment: a look is at the version that serves now",
    )


@dataclass(frozen=True)
class _DayCounter:
    """Reads or counts days in the cells of `before`, of the digest `name`. `fresh`: days that were counted."""

    source: LogSource
    cache: ResultCache
    before: DriftProfile
    name: str
    flagged: frozenset[str]
    end: datetime
    fresh: list[date] = field(default_factory=list)

    def past(self, day: date, files: list[list[object]]) -> _Day:
        """The day without what is not of before the end."""
        counts = self._day(day, digest([self.name, sorted(files, key=str)]))
        blocks = counts.traffic if counts.profile is None else (*counts.profile.blocks, *counts.traffic)
        end, length = to_micros(self.end), micros(self.source.length)
        if all(block.start + length <= end for block in blocks):
            return counts
        if all(block.start >= end for block in blocks):
            coming = 0 if counts.profile is None else counts.profile.rows
            return _Day(of=counts.of, traffic=(), others=counts.others, misdated=counts.misdated, coming=coming)
        return self._counted(day, counts.of, before=self.end)

    def _day(self, day: date, of: str) -> _Day:
        stored = self.cache.read(str(day), _Day)
        if stored is not None and stored.of == of:
            return _celled(stored, {column.name: column.cells for column in self.before.columns})
        self.fresh.append(day)
        try:
            counts = self._counted(day, of)
        except DataError:  # more windows than a look may have: those that are past may be fewer
            return self._counted(day, of, before=self.end)
        self.cache.write(str(day), _celled(counts, {}))
        return counts

    def _counted(self, day: date, of: str, before: datetime | None = None) -> _Day:
        source = self.source
        with contextlib.nullcontext() if source.spill is None else source.spill.within(f"{day}.counted") as spill:
            table = open_log(source.log, since=day, until=day, of=source.of, skew=source.skew, spill=spill)
            return self._count(table, of, before)

    def _count(self, table: PredictionTable, of: str, before: datetime | None) -> _Day:
        from cumulant.monitoring.drift.profiling import profile

        coming = 0
        if table.columns and before is not None:
            past = replace(table, rows=table.rows.filter(pl.col(MOMENT) < before))
            table, coming = past, table.count() - past.count()
        day = _Day(
            of=of,
            traffic=traffic_of(table, self.source.length, before),
            others=table.others,
            misdated=sum(table.misdated.values()),
            coming=coming,
        )
        if not table.columns or not table.count():
            return day
        lacking = [column.name for column in self.before.columns if column.name not in table.columns]
        full = table.rows.with_columns(pl.lit(None).alias(name) for name in lacking)
        cut = by_time(table.parts(MOMENT), self.source.length)
        counts = profile(as_flags(replace(table, rows=full), self.flagged).rows, {}, cut=cut, like=self.before)
        return msgspec.structs.replace(day, columns=table.columns, profile=counts)


def _celled(day: _Day, cells: Mapping[str, ColumnCells]) -> _Day:
    if day.profile is None:
        return day
    columns = (
        msgspec.structs.replace(column, cells=cells.get(column.name, _NO_CELLS)) for column in day.profile.columns
    )
    return msgspec.structs.replace(day, profile=msgspec.structs.replace(day.profile, columns=tuple(columns)))


@dataclass(frozen=True)
class LogWindows:
    """The windows of a log, counted by day (`load_log_windows`); only `rows` reads the log.

    `before`: counts of the reference; `fresh`: days that were counted anew, oldest first.
    """

    source: LogSource
    reference: TableWindows
    before: DriftProfile
    days: Mapping[date, _Day]
    merged: DriftProfile
    end: datetime
    columns: tuple[str, ...]
    fresh: list[date]
    time: str | None = MOMENT
    is_log: bool = True
    #: days whose rows are in memory: findings read the same windows
    _held: dict[date, PredictionTable] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name.startswith(ANSWER))

    @property
    def others(self) -> int:
        return sum(counts.others for counts in self.days.values())

    @property
    def misdated(self) -> Mapping[date, int]:
        return {day: counts.misdated for day, counts in self.days.items()}

    @property
    def coming(self) -> int:
        """Rows that are not counted yet; none where a past period is evaluated."""
        return 0 if self.source.before is not None else sum(counts.coming for counts in self.days.values())

    def traffic(self) -> ModelTraffic | None:
        if self.source.of is None:
            return None
        counts, length = Counter[int](), micros(self.source.length)
        lags = []
        for day, day_counts in self.days.items():
            counts.update({block.start: block.rows for block in day_counts.traffic})
            if day_counts.traffic:
                end = (day - _EPOCH).days * micros(_DAY) + micros(_DAY)
                lags.append(end - day_counts.traffic[-1].start - length)
        windows = tuple(ProfileBlock(*pair, timed=True) for pair in sorted(counts.items()))
        return ModelTraffic(windows, _usual_lag(lags[:-1]))

    def against(self, reference: TableWindows, roles: Mapping[str, Role]) -> tuple[DriftProfile, DriftProfile]:
        assert reference is self.reference
        return only(self.before, roles), only(self.merged, roles)

    def rows(self, names: Sequence[str], first: int, last: int) -> tuple[pl.DataFrame, Codes | None]:
        starts = np.array([block.start for block in self.merged.blocks], dtype=np.int64)
        low, high = int(starts[first]), int(starts[last]) + micros(self.source.length)
        high = min(high, to_micros(self.end))
        parts = list(self._parts(names, low, high))
        if not parts:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.Null)), np.zeros(0, dtype=np.int64)
        rows = pl.concat(parts, how="vertical_relaxed")
        codes = np.searchsorted(starts, rows[_AT].to_numpy(), side="right") - 1
        return rows.drop(_AT), codes.astype(np.int64)

    def _parts(self, names: Sequence[str], low: int, high: int) -> Iterator[pl.DataFrame]:
        """Rows from `low` to before `high`, in microseconds, of the days that have any."""
        flagged = flags(self.reference.table)
        for day, counts in self.days.items():
            if counts.profile is None or not any(low <= block.start < high for block in counts.profile.blocks):
                continue
            table = as_flags(self._opened(day), flagged)
            columns = [pl.col(name) if name in table.columns else pl.lit(None).alias(name) for name in names]
            with readable(self.name):
                part = table.rows.select(*columns, pl.col(MOMENT).dt.epoch("us").alias(_AT)).collect()
            yield part.filter(pl.col(_AT).is_between(low, high, closed="left"))

    def _opened(self, day: date) -> PredictionTable:
        source = self.source
        if day not in self._held:
            if len(self._held) >= _HELD:
                oldest = next(iter(self._held))
                del self._held[oldest]
                if source.spill is not None:
                    source.spill.delete([str(oldest), f"{oldest}.moments"])
            self._held[day] = open_table(
                source.log, since=day, until=day, of=source.of, skew=source.skew, spill=source.spill, name=str(day)
            )
        return self._held[day]


def _usual_lag(lags: Sequence[int]) -> int:
    """The lag that a tenth of the days exceed at most: one day of an outage or of old rows sets none."""
    return max(sorted(lags)[int(_USUAL * len(lags))], 0) if lags else 0


def answer_columns(log: Log) -> frozenset[str]:
    """The columns of the newest answers of a log."""
    from cumulant.serving.prediction_log.storage.log_reader import recent_predictions

    texts = (entry.outputs for entry in recent_predictions(log, limit=20))
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

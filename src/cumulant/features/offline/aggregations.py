"""The aggregations of windows offline: columns of frames to `kernel.values`, and those that need more than numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import Aggregation
from cumulant.features.offline.frames import codes, floats, numbers, valid
from cumulant.features.offline.kernel.ranges import Distinct, Numbers, last_valid
from cumulant.features.offline.kernel.timeline import Flags, Ints
from cumulant.features.offline.kernel.values import Ranges, RangeValues


class OwnRows(NamedTuple):
    """The queries as events: their times, and which queries come after events that enter at the same time."""

    times: Ints
    is_later: Callable[[Ints, Ints], Flags]


class EventValues(RangeValues):
    """One value of the group's events, in their sorted order, and of the queries, in theirs.

    `series` is in source order and `order` sorts it; `own`: None where no query's own row joins. Prefix sums are
    shared.
    """

    def __init__(
        self, series: pl.Series, order: Ints, own: pl.Series | None, *, event_keys: Ints, query_keys: Ints
    ) -> None:
        known = valid(series)
        super().__init__(
            _SeriesNumbers(series, order, own),
            event_keys,
            valid=None if known is None else known[order],
            own_valid=None if own is None else own.is_not_null().to_numpy(),
            is_float=series.dtype == pl.Float64,
        )
        self.series = series
        self.own = own
        self._order = order
        self._event_keys = event_keys
        self._query_keys = query_keys

    @cached_property
    def _distinct(self) -> tuple[Distinct, Ints]:
        """The events' values, and the numbers of the queries' own values."""
        whole = self.series if self.own is None else pl.concat([self.series, self.own])
        numbered = codes(whole)[0]
        events = numbered[: len(self.series)][self._order]
        return Distinct(self._event_keys, events), numbered[len(self.series) :]

    def different(self, ranges: Ranges) -> tuple[Ints, None]:
        distinct, own_codes = self._distinct
        count, own = distinct.between(ranges.lo, ranges.hi), self.joins(ranges)
        if own is not None:
            count = count + (own & ~distinct.holds(self._query_keys, own_codes, ranges.lo, ranges.hi))
        return count, None

    def newest(self, ranges: Ranges, times: Ints, own_rows: OwnRows | None, *, skip_null: bool) -> tuple[Ints, Flags]:
        """The position in `series` (followed by `own`) of the newest event of each range."""
        at = last_valid(self.valid, ranges.hi) if skip_null and self.valid is not None else ranges.hi - 1
        has_event = at >= ranges.lo
        if not len(times):
            position, newest = np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int64)
        else:
            at = np.maximum(at, 0)
            position, newest = self._order[at], times[at]
        own = self.joins(ranges) if skip_null else ranges.own
        if own is not None and own_rows is not None:
            takes = own & (~has_event | (own_rows.times > newest))
            tied = np.flatnonzero(own & has_event & (own_rows.times == newest))
            if len(tied):
                takes[tied] = own_rows.is_later(tied, position[tied])
            position = np.where(takes, len(self.series) + np.arange(len(takes)), position)
            has_event = has_event | takes
        return position, has_event


class _SeriesNumbers:
    """The numbers of `series`, sorted by `order`, and of `own`."""

    def __init__(self, series: pl.Series, order: Ints, own: pl.Series | None) -> None:
        self._series, self._order, self._own = series, order, own

    def events(self) -> Numbers:
        return _numbers(self._series)[self._order]

    def own(self) -> Numbers | None:
        return None if self._own is None else _numbers(self._own)


def _numbers(series: pl.Series) -> Numbers:
    """The values as numpy numbers, 0 for null."""
    return floats(series) if series.dtype == pl.Float64 else numbers(series)


Aggregate = Callable[[EventValues, Ranges], tuple[Numbers, Flags | None]]
AGGREGATIONS: dict[Aggregation, Aggregate] = {
    "count": EventValues.count,
    "sum": EventValues.total,
    "mean": EventValues.mean,
    "min": lambda values, ranges: values.extreme(ranges, largest=False),
    "max": lambda values, ranges: values.extreme(ranges, largest=True),
    "std": EventValues.deviation,
    "distinct": EventValues.different,
}

"""The aggregations of windows offline: arrays over ranges of sorted events, with the query's own value where it joins.

Each gives a number for each query, and where it exists (else null; None: everywhere). Infinite results are null.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from cumulant.core.plan import Aggregation
from cumulant.features.offline.frames import codes, floats, numbers, valid
from cumulant.features.offline.kernel.ranges import Distinct, extremes, latest
from cumulant.features.offline.kernel.spread import deviations
from cumulant.features.offline.kernel.sums import Floats, PrefixSums, int_prefix
from cumulant.features.offline.kernel.timeline import Ints
from cumulant.features.offline.kernel.whole import WholeSums

Flags = npt.NDArray[np.bool_]
Numbers = Ints | Floats


class Ranges:
    """For each query, the sorted events [lo, hi) of one window, and whether the query's own row joins them."""

    def __init__(self, lo: Ints, hi: Ints, own: Flags | None) -> None:
        self.lo = lo
        self.hi = hi
        self.own = own

    @cached_property
    def count(self) -> Ints:
        """How many events and own rows."""
        count = self.hi - self.lo
        return count if self.own is None else count + self.own


class EventValues:
    """One value of the group's events, in their sorted order, and of the queries, in theirs.

    `series` is in source order and `order` sorts it; `own`: None where no query's own row joins. Prefix sums are
    shared.
    """

    def __init__(
        self, series: pl.Series, order: Ints, own: pl.Series | None, *, event_keys: Ints, query_keys: Ints
    ) -> None:
        self.series = series
        self.own = own
        self._order = order
        self._event_keys = event_keys
        self._query_keys = query_keys
        known = valid(series)
        #: which events have a value; None for all
        self.valid: Flags | None = None if known is None else known[order]
        self._own_valid: Flags | None = None if own is None else own.is_not_null().to_numpy()
        self.is_float = series.dtype == pl.Float64

    @cached_property
    def _valid_prefix(self) -> Ints:
        assert self.valid is not None
        return int_prefix(self.valid.astype(np.int64))

    @cached_property
    def _sums(self) -> PrefixSums:
        own = None if self.own is None else floats(self.own)
        return PrefixSums(floats(self.series)[self._order], own)

    @cached_property
    def _whole_sums(self) -> WholeSums:
        return WholeSums(numbers(self.series)[self._order], None if self.own is None else numbers(self.own))

    @cached_property
    def _present(self) -> Numbers:
        """The values that are not null."""
        return self._sorted() if self.valid is None else self._sorted()[self.valid]

    @cached_property
    def _distinct(self) -> tuple[Distinct, Ints]:
        """The events' values, and the numbers of the queries' own values."""
        whole = self.series if self.own is None else pl.concat([self.series, self.own])
        numbered = codes(whole)[0]
        events = numbered[: len(self.series)][self._order]
        return Distinct(self._event_keys, events), numbered[len(self.series) :]

    def _sorted(self) -> Numbers:
        """In the order of the events; 0 for null."""
        return _numbers(self.series)[self._order]

    def joins(self, ranges: Ranges) -> Flags | None:
        """Where the query's own value joins; None for nowhere."""
        if ranges.own is None or self._own_valid is None:
            return None
        return ranges.own & self._own_valid

    def present_ranges(self, ranges: Ranges) -> Ranges:
        """The ranges among events that have a value."""
        if self.valid is None:
            return ranges
        return Ranges(self._valid_prefix[ranges.lo], self._valid_prefix[ranges.hi], ranges.own)

    def count(self, ranges: Ranges) -> tuple[Ints, None]:
        if self.valid is None and self.own is None:
            return ranges.count, None
        present, own = self.present_ranges(ranges), self.joins(ranges)
        counted = present.hi - present.lo
        return counted if own is None else counted + own, None

    def total(self, ranges: Ranges) -> tuple[Numbers, Flags]:
        """A sum of whole numbers that fits no int64 is null."""
        has_values = self.count(ranges)[0] > 0
        own = self.joins(ranges)
        if self.is_float:
            return self._sums.between(ranges.lo, ranges.hi, with_extra=own), has_values
        summed, fits = self._whole_sums.between(ranges.lo, ranges.hi, with_extra=own)
        return summed, has_values if fits is None else has_values & fits

    def mean(self, ranges: Ranges) -> tuple[Floats, None]:
        """Over nothing, 0 / 0 is NaN and so null."""
        count, own = self.count(ranges)[0], self.joins(ranges)
        with np.errstate(invalid="ignore"):
            if self.is_float:
                return self._sums.means(ranges.lo, ranges.hi, count, with_extra=own), None
            return self._whole_sums.floats(ranges.lo, ranges.hi, with_extra=own) / count, None

    def deviation(self, ranges: Ranges) -> tuple[Floats, None]:
        present, own = self.present_ranges(ranges), self.joins(ranges)
        keys = self._event_keys if self.valid is None else self._event_keys[self.valid]
        starts = np.searchsorted(keys, keys, side="left")
        size = len(present.lo)
        own_values = np.zeros(size) if self.own is None else floats(self.own)
        flags = np.zeros(size, dtype=np.bool_) if own is None else own
        events = self._present.astype(np.float64)
        result = deviations(events, starts, present.lo, present.hi, own=own_values, with_own=flags)
        return result, None

    def extreme(self, ranges: Ranges, *, largest: bool) -> tuple[Numbers, Flags]:
        present, own = self.present_ranges(ranges), self.joins(ranges)
        has_values = present.hi > present.lo
        result = extremes(self._present, present.lo, present.hi, largest=largest)
        if own is not None and self.own is not None:
            own_values = _numbers(self.own)
            both = (np.maximum if largest else np.minimum)(result, own_values)
            result, has_values = np.where(own, np.where(has_values, both, own_values), result), has_values | own
        return result, has_values

    def different(self, ranges: Ranges) -> tuple[Ints, None]:
        distinct, own_codes = self._distinct
        count, own = distinct.between(ranges.lo, ranges.hi), self.joins(ranges)
        if own is not None:
            count = count + (own & ~distinct.holds(self._query_keys, own_codes, ranges.lo, ranges.hi))
        return count, None

    def newest(self, ranges: Ranges, times: Ints, own_times: Ints | None, *, skip_null: bool) -> tuple[Ints, Flags]:
        """The position in `series` (followed by `own`) of the newest event of each range, by time, then row."""
        at = latest(self.valid, ranges.hi) if skip_null and self.valid is not None else ranges.hi - 1
        has_event = at >= ranges.lo
        if not len(times):
            position, newest = np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int64)
        else:
            at = np.maximum(at, 0)
            position, newest = self._order[at], times[at]
        own = self.joins(ranges) if skip_null else ranges.own
        if own is not None and own_times is not None:
            takes = own & (~has_event | (own_times >= newest))
            position = np.where(takes, len(self.series) + np.arange(len(takes)), position)
            has_event = has_event | takes
        return position, has_event


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

"""Aggregations over ranges of sorted events, with the query's own value where it joins; numpy only.

Each gives a number for each query, and where it exists (else null; None: everywhere). Infinite results are null.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cumulant.features.offline.kernel.ranges import Gathered, Numbers, extremes, gather
from cumulant.features.offline.kernel.spread import deviations, gathered_deviations
from cumulant.features.offline.kernel.sums import Floats, PrefixSums, int_prefix
from cumulant.features.offline.kernel.timeline import Flags, Ints
from cumulant.features.offline.kernel.whole import WholeSums


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

    @cached_property
    def size(self) -> int:
        """How many of all ranges together."""
        return int(self.count.sum())


class NumberSource(Protocol):
    """Float64 or int64 values, 0 for null: of the events in their sorted order, and of the queries."""

    def events(self) -> Numbers: ...

    def own(self) -> Numbers | None:
        """None where no query's own row joins."""
        ...


class RangeValues:
    """One value of sorted events, aggregated over ranges. Prefix sums are shared.

    `valid`: which events have a value, `own_valid`: which queries have one of their own; `keys` number the events' keys
    in their order. `few`: the ranges together hold few values.
    """

    def __init__(
        self,
        source: NumberSource,
        keys: Ints,
        *,
        valid: Flags | None,
        own_valid: Flags | None,
        is_float: bool,
        few: bool = False,
    ) -> None:
        self._source, self._keys = source, keys
        self.valid, self._own_valid, self.is_float = valid, own_valid, is_float
        #: use the formula for few values in standard deviations
        self._few = few
        self._summed: tuple[Ranges, Floats] | None = None
        self._collected: tuple[Ranges, Gathered | None, Flags] | None = None

    @cached_property
    def _valid_prefix(self) -> Ints:
        assert self.valid is not None
        return int_prefix(self.valid.astype(np.int64))

    @cached_property
    def _sums(self) -> PrefixSums:
        own = self._source.own()
        return PrefixSums(_floats(self._source.events()), None if own is None else _floats(own))

    @cached_property
    def _whole_sums(self) -> WholeSums:
        own = self._source.own()
        return WholeSums(_whole(self._source.events()), None if own is None else _whole(own))

    @cached_property
    def _present(self) -> Numbers:
        """The values that are not null."""
        numbers = self._source.events()
        return numbers if self.valid is None else numbers[self.valid]

    def _key_starts(self) -> Ints:
        """For each value that is not null, where the values of its key begin."""
        keys = self._keys if self.valid is None else self._keys[self.valid]
        begins = np.ones(len(keys), dtype=np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=begins[1:])
        starts: Ints = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        return starts

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
        if self.valid is None and self._own_valid is None:
            return ranges.count, None
        present, own = self.present_ranges(ranges), self.joins(ranges)
        counted = present.hi - present.lo
        return counted if own is None else counted + own, None

    def total(self, ranges: Ranges) -> tuple[Numbers, Flags]:
        """A sum of whole numbers that fits no int64 is null."""
        has_values = self.count(ranges)[0] > 0
        own = self.joins(ranges)
        if self.is_float:
            return self._between(ranges, own), has_values
        summed, fits = self._whole_sums.between(ranges.lo, ranges.hi, with_extra=own)
        return summed, has_values if fits is None else has_values & fits

    def mean(self, ranges: Ranges) -> tuple[Floats, None]:
        """Over nothing, 0 / 0 is NaN and so null."""
        count, own = self.count(ranges)[0], self.joins(ranges)
        with np.errstate(invalid="ignore"):
            if self.is_float:
                total = self._between(ranges, own) if self._few else None
                return self._sums.means(ranges.lo, ranges.hi, count, with_extra=own, total=total), None
            return self._whole_sums.floats(ranges.lo, ranges.hi, with_extra=own) / count, None

    def _between(self, ranges: Ranges, own: Flags | None) -> Floats:
        """The sums, which are kept for the mean of the same ranges where they are few."""
        if self._summed is not None and self._summed[0] is ranges:
            return self._summed[1]
        total = self._sums.between(ranges.lo, ranges.hi, with_extra=own)
        if self._few:
            self._summed = (ranges, total)
        return total

    def deviation(self, ranges: Ranges) -> tuple[Floats, None]:
        if self._few:
            values, filled = self._gathered(ranges)
            result = np.full(len(filled), np.nan)
            if values is not None:
                result[filled] = gathered_deviations(values)
            return result, None
        present, own, own_numbers = self.present_ranges(ranges), self.joins(ranges), self._source.own()
        size = len(present.lo)
        own_values = np.zeros(size) if own_numbers is None else _floats(own_numbers)
        flags = np.zeros(size, dtype=np.bool_) if own is None else own
        events = _floats(self._present)
        result = deviations(events, self._key_starts(), present.lo, present.hi, own=own_values, with_own=flags)
        return result, None

    def extreme(self, ranges: Ranges, *, largest: bool) -> tuple[Numbers, Flags]:
        if self._few:
            values, filled = self._gathered(ranges)
            chosen: npt.NDArray[Any] = np.zeros_like(self._present, shape=len(filled))
            if values is not None:
                chosen[filled] = values.largest if largest else values.smallest
            return chosen, filled
        present, own, own_numbers = self.present_ranges(ranges), self.joins(ranges), self._source.own()
        has_values = present.hi > present.lo
        result = extremes(self._present, present.lo, present.hi, largest=largest)
        if own is not None and own_numbers is not None:
            both = (np.maximum if largest else np.minimum)(result, own_numbers)
            result, has_values = np.where(own, np.where(has_values, both, own_numbers), result), has_values | own
        return result, has_values

    def _gathered(self, ranges: Ranges) -> tuple[Gathered | None, Flags]:
        """The values of the ranges that have any, None where none has; and which have. Kept for the next aggregation of
        the same ranges.
        """
        if self._collected is None or self._collected[0] is not ranges:
            present, own, own_numbers = self.present_ranges(ranges), self.joins(ranges), self._source.own()
            lo, hi = present.lo, present.hi
            filled: Flags = hi > lo if own is None else (hi > lo) | own
            if not filled.all():
                lo, hi = lo[filled], hi[filled]
                own = None if own is None else own[filled]
                own_numbers = None if own_numbers is None else own_numbers[filled]
            values = gather(self._present, lo, hi, own=own_numbers, with_own=own) if len(lo) else None
            self._collected = (ranges, values, filled)
        return self._collected[1:]


def _floats(numbers: Numbers) -> Floats:
    return numbers.astype(np.float64, copy=False)


def _whole(numbers: Numbers) -> Ints:
    return numbers.astype(np.int64, copy=False)

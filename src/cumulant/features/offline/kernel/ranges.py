"""Smallest, largest, last and different values over ranges of sorted events."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cumulant.features.offline.kernel.timeline import Flags, Ints, bits, grouped_order

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]
#: the largest number that stands for a key and an event time
_MOST_PACKED = 2**62


class Gathered:
    """The values of ranges that are not empty, one range after the other: `lengths` of them from `begins` on."""

    def __init__(self, numbers: Numbers, begins: Ints, lengths: Ints) -> None:
        self.numbers, self.begins, self.lengths = numbers, begins, lengths

    @cached_property
    def smallest(self) -> Numbers:
        """Of each range."""
        result: Numbers = np.minimum.reduceat(self.numbers, self.begins)
        return result

    @cached_property
    def largest(self) -> Numbers:
        result: Numbers = np.maximum.reduceat(self.numbers, self.begins)
        return result


def gather(values: Numbers, lo: Ints, hi: Ints, *, own: Numbers | None, with_own: Flags | None) -> Gathered:
    """The values of ranges [lo, hi), each followed by the value of `own` at its position where `with_own`; no range
    may be empty with it.
    """
    lengths = hi - lo if with_own is None else hi - lo + with_own
    ends = np.cumsum(lengths)
    begins = ends - lengths
    positions: Ints = np.repeat(lo - begins, lengths)
    positions += np.arange(len(positions))
    numbers: npt.NDArray[Any] = np.zeros_like(values, shape=len(positions))
    if len(values):
        values.take(positions, out=numbers, mode="clip")
    if with_own is not None and own is not None:
        numbers[ends[with_own] - 1] = own[with_own]
    return Gathered(numbers, begins, lengths)


def extremes(values: Numbers, lo: Ints, hi: Ints, *, largest: bool) -> Numbers:
    """The largest or smallest of each range [lo, hi); undefined for an empty one.

    Sparse table: the extremes of all runs of length 2**k answer ranges from two runs that overlap, level by level.
    """
    pick = np.maximum if largest else np.minimum
    floats = values.dtype == np.float64
    result: Numbers = np.zeros(len(lo), np.float64) if floats else np.zeros(len(lo), np.int64)
    lengths = hi - lo
    levels = np.frexp(np.maximum(lengths, 1).astype(np.float64))[1] - 1
    level, table = 0, values
    for wanted in range(int(levels.max(initial=0)) + 1):
        while level < wanted:
            half = 1 << level
            table = pick(table[:-half], table[half:])
            level += 1
        at = np.flatnonzero((levels == wanted) & (lengths > 0))
        if len(at):
            result[at] = pick(table[lo[at]], table[hi[at] - (1 << wanted)])
    return result


def last_valid(valid: npt.NDArray[np.bool_], hi: Ints) -> Ints:
    """For each `hi`, the last valid position before it, or -1."""
    newest = np.full(len(valid) + 1, -1, dtype=np.int64)
    np.maximum.accumulate(np.where(valid, np.arange(len(valid), dtype=np.int64), -1), out=newest[1:])
    return newest[hi]


class LatestEvents:
    """The event of each range with the greatest event time, of equal ones the last. Events are sorted by key, which
    are numbered from 0.
    """

    def __init__(self, keys: Ints, event_times: Ints) -> None:
        self._keys, self._event_times = keys, event_times

    @cached_property
    def _order(self) -> Ints:
        """The positions in the order of (key, event time, position)."""
        return np.lexsort((self._event_times, self._keys)).astype(np.int64)

    @cached_property
    def _places(self) -> Ints:
        """The place of each position in that order."""
        places = np.empty(len(self._keys), dtype=np.int64)
        places[self._order] = np.arange(len(self._keys), dtype=np.int64)
        return places

    @cached_property
    def _running(self) -> Ints:
        """For each position, that of the latest event of its key up to there."""
        times, keys = self._event_times, self._keys
        first = int(times.min())
        width = int(times.max()) - first + 1
        ranks = keys * width + (times - first) if (int(keys[-1]) + 1) * width < _MOST_PACKED else self._places
        latest = ranks == np.maximum.accumulate(ranks)
        running: Ints = np.maximum.accumulate(np.where(latest, np.arange(len(keys), dtype=np.int64), 0))
        return running

    def before(self, lo: Ints, hi: Ints) -> tuple[Ints, Flags]:
        """The position of the latest of all events of the key before `hi`, and whether [lo, hi) has any."""
        filled = hi > lo
        if not len(self._keys):
            return np.zeros_like(hi), filled
        return self._running[np.maximum(hi - 1, 0)], filled

    def in_ranges(self, lo: Ints, hi: Ints, valid: Flags | None) -> tuple[Ints, Flags]:
        """The position of the latest valid event (None: all are) of each range [lo, hi), and whether there is one."""
        places = self._places
        if valid is not None:
            before = np.zeros(len(valid) + 1, dtype=np.int64)
            np.cumsum(valid, out=before[1:])
            places, lo, hi = places[valid], before[lo], before[hi]
        filled = hi > lo
        chosen = extremes(places, lo, hi, largest=True)
        return (self._order[chosen] if len(self._keys) else np.zeros_like(hi)), filled


class Distinct:
    """Numbers of different values in ranges.

    A value counts at its first occurrence in the range, where its predecessor of the same key lies before the range.
    `codes` number the values from 0; -1 is null.
    """

    def __init__(self, keys: Ints, codes: Ints) -> None:
        count = len(keys)
        kinds = int(codes.max(initial=0)) + 2
        self._kinds = kinds
        pairs = keys * kinds + (codes + 1)
        positions = np.arange(count, dtype=np.int64)
        self._order = grouped_order(pairs, positions)
        self._pairs = pairs[self._order]
        before = np.full(count, -1, dtype=np.int64)
        same = self._pairs[1:] == self._pairs[:-1]
        before[self._order[1:][same]] = self._order[:-1][same]
        before[codes < 0] = count
        self._before = before

    def between(self, lo: Ints, hi: Ints) -> Ints:
        """How many different values each range [lo, hi) holds."""
        return _count_below(self._before + 1, lo, hi, lo + 1)

    def holds(self, keys: Ints, codes: Ints, lo: Ints, hi: Ints) -> npt.NDArray[np.bool_]:
        """Whether each range holds this value of this key."""
        shift = bits(len(self._order) + 1)
        pairs, wanted = _dense(self._pairs, keys * self._kinds + (codes + 1))
        sorted_pairs = (pairs << shift) | self._order
        places = np.searchsorted(sorted_pairs, (wanted << shift) | hi, side="left")
        newest = np.where(places > 0, places - 1, 0)
        if not len(self._order):
            return np.zeros(len(lo), dtype=np.bool_)
        result: npt.NDArray[np.bool_] = (places > 0) & (pairs[newest] == wanted) & (self._order[newest] >= lo)
        return result


def _dense(pairs: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Sorted and requested pairs, renumbered from 0; one that does not occur gets a number of its own."""
    unique = np.unique(pairs)
    at = np.searchsorted(unique, wanted)
    known = at < len(unique)
    known[known] = unique[at[known]] == wanted[known]
    return np.searchsorted(unique, pairs), np.where(known, at, len(unique))


def _count_below(values: Ints, lo: Ints, hi: Ints, limits: Ints) -> Ints:
    """How many of values[lo:hi] (not negative) are below the limit of each range, by a wavelet matrix."""
    counted = np.zeros(len(lo), dtype=np.int64)
    lo, hi = lo.copy(), hi.copy()
    for level in range(bits(max(int(values.max(initial=0)), int(limits.max(initial=0)))) - 1, -1, -1):
        ones = (values >> level & 1).astype(bool)
        zeros_before = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(~ones, out=zeros_before[1:])
        zero_lo, zero_hi = zeros_before[lo], zeros_before[hi]
        up = (limits >> level & 1).astype(bool)
        counted += np.where(up, zero_hi - zero_lo, 0)
        zeros = int(zeros_before[-1])
        lo = np.where(up, zeros + lo - zero_lo, zero_lo)
        hi = np.where(up, zeros + hi - zero_hi, zero_hi)
        values = np.concatenate((values[~ones], values[ones]))
    return counted

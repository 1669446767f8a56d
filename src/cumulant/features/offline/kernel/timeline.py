"""Events sorted by key and time, and the ranges of them that windows cover."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_BITS = 62
#: queries of a lookup, whose data fit into the processor's cache
CHUNK = 1 << 13


def is_sorted(values: Ints) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def bits(count: int) -> int:
    """Bits that hold the numbers 0 to `count`."""
    return max(int(count).bit_length(), 1)


def grouped_order(codes: Ints, times: Ints) -> Ints:
    """The positions of rows sorted by code, then time, then position, by one sort of packed integers."""
    count = len(codes)
    in_time = None if is_sorted(times) else np.argsort(times, kind="stable")
    ranked = codes if in_time is None else codes[in_time]
    shift = bits(count)
    if count and int(ranked.max()) >= 1 << (_BITS - shift):
        ranked = np.unique(ranked, return_inverse=True)[1].astype(np.int64)
    packed = ranked << shift
    packed |= np.arange(count, dtype=np.int64)
    packed.sort()
    packed &= (1 << shift) - 1
    return packed if in_time is None else in_time[packed]


class QueryKeys(NamedTuple):
    """The keys of queries: their numbers (-1 for one without events), and where their sorted events begin and end."""

    numbers: Ints
    starts: Ints
    ends: Ints


class Timeline:
    """Events of one group of windows, sorted by (key, time, `tie_order` of positions, position in the source).

    `order`: the position in the source of each sorted event. `keys` number their keys from 0 without gaps; times are
    microseconds, or any integers.
    """

    def __init__(
        self,
        codes: Ints,
        times: Ints,
        positions: Ints | None = None,
        tie_order: Callable[[Ints], Sequence[Ints]] | None = None,
    ) -> None:
        order = grouped_order(codes, times)
        self.order: Ints = order if positions is None else positions[order]
        self.times: Ints = times[order]
        codes = codes[order]
        begins = np.ones(len(codes), dtype=np.bool_)
        np.not_equal(codes[1:], codes[:-1], out=begins[1:])
        if tie_order is not None:
            self._sort_ties(begins, tie_order)
        heads = np.flatnonzero(begins)
        self.keys: Ints = np.cumsum(begins) - 1
        self._codes = codes[heads]
        self._bounds: Ints = np.append(heads, len(codes))

    def _sort_ties(self, begins: Flags, tie_order: Callable[[Ints], Sequence[Ints]]) -> None:
        """Sort the events of each key and moment; `begins`: where the events of a key begin."""
        starts = begins.copy()
        starts[1:] |= self.times[1:] != self.times[:-1]
        single = starts.copy()
        single[:-1] &= starts[1:]
        tied = np.flatnonzero(~single)
        if len(tied):
            positions = self.order[tied]
            by = [*reversed(tie_order(positions)), np.cumsum(starts[tied])]
            self.order[tied] = positions[np.lexsort(by)]

    def __len__(self) -> int:
        return len(self.order)

    def find(self, codes: Ints) -> QueryKeys:
        """The keys with these codes, which are quick to find where they are sorted."""
        at = np.searchsorted(self._codes, codes)
        absent = at == len(self._codes)
        absent[~absent] = self._codes[at[~absent]] != codes[~absent]
        starts = self._bounds[at]
        ends = np.where(absent, starts, self._bounds[np.minimum(at + 1, len(self._codes))])
        return QueryKeys(np.where(absent, -1, at), starts, ends)

    def until(self, keys: QueryKeys, moments: Ints) -> Ints:
        """For each key and moment, how many sorted events stand before the first later one of the key, by bisection."""
        if not len(self.times):
            return keys.starts
        result, search = np.empty(len(moments), dtype=np.int64), Bisection(self.times, min(len(moments), CHUNK))
        for start in range(0, len(moments), CHUNK):
            part = slice(start, start + CHUNK)
            search.until(keys.starts[part], keys.ends[part], moments[part], out=result[part])
        return result

    def own(self) -> tuple[QueryKeys, Ints]:
        """`find` and `until` of the sorted events themselves, at their own times."""
        starts, ends = self._bounds[:-1], self._bounds[1:]
        last = np.ones(len(self), dtype=np.bool_)
        np.not_equal(self.times[1:], self.times[:-1], out=last[:-1])
        last[ends - 1] = True
        until = np.flatnonzero(last) + 1
        sizes = ends - starts
        keys = QueryKeys(self.keys, np.repeat(starts, sizes), np.repeat(ends, sizes))
        return keys, np.repeat(until, np.diff(until, prepend=0))


class Bisection:
    """Searches of up to `count` ranges of sorted times at once, in arrays that are used again."""

    def __init__(self, times: Ints, count: int) -> None:
        self._times = times
        self._positions, self._last, self._there = np.empty((3, count), dtype=np.int64)
        self._flags, self._before = np.empty((2, count), dtype=np.bool_)

    def until(self, starts: Ints, ends: Ints, moments: Ints, *, out: Ints) -> None:
        """For each range [start, end) the position after its last time that is not after the moment."""
        count = len(out)
        further, last, there = self._positions[:count], self._last[:count], self._there[:count]
        inside, before = self._flags[:count], self._before[:count]
        np.subtract(ends, starts, out=further)
        step = 1 << bits(int(further.max(initial=0))) - 1
        np.subtract(starts, 1, out=out)  # the last position of which it is known
        np.subtract(ends, 1, out=last)
        while step:
            np.add(out, step, out=further)
            np.less_equal(further, last, out=inside)
            self._times.take(further, out=there, mode="clip")
            np.less_equal(there, moments, out=before)
            np.logical_and(inside, before, out=inside)
            np.multiply(inside, step, out=further)
            np.add(out, further, out=out)
            step >>= 1
        np.add(out, 1, out=out)

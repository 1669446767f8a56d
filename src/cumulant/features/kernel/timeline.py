"""Events sorted by key and time, and the ranges of them that windows cover."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_BITS = 62


def is_sorted(values: Ints) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def bits(count: int) -> int:
    """Bits that hold the numbers 0 to `count`."""
    return max(int(count).bit_length(), 1)


def grouped_order(codes: Ints, times: Ints) -> Ints:
    """The positions of rows sorted by code, then time, then position.

    Code and rank in time are packed into one integer, so that one sort of plain integers does it all.
    """
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


class Timeline:
    """Events of one group of windows, sorted by (key, time, position in the source).

    `order` holds the position in the source of each sorted event. `codes` number the keys from 0; times are
    microseconds, or any integers.
    """

    def __init__(self, codes: Ints, times: Ints, positions: Ints | None = None) -> None:
        order = grouped_order(codes, times)
        self.order: Ints = order if positions is None else positions[order]
        self.codes: Ints = codes[order]
        self.times: Ints = times[order]
        self._first = int(times.min()) if len(times) else 0
        length = int(times.max()) - self._first if len(times) else 0
        top = int(self.codes[-1]) if len(codes) else 0
        #: where key and time do not fit one integer together, times are replaced by their ranks
        self._ranks: Ints | None = None
        if bits(length + 2) + bits(top + 1) > _BITS:
            self._ranks = np.unique(self.times)
            length = len(self._ranks)
        self._length = length
        self._shift = bits(length + 2)
        self._top = top
        offsets = self.times - self._first + 1 if self._ranks is None else self._ranked(self.times)
        offsets |= self.codes << self._shift
        self._packed: Ints = offsets

    def __len__(self) -> int:
        return len(self.order)

    def _ranked(self, moments: Ints) -> Ints:
        assert self._ranks is not None
        return np.searchsorted(self._ranks, moments, side="right")

    def keys(self, codes: Ints) -> Ints:
        """Codes in the form that `until` and `starts` search for; one outside those of the timeline stands last."""
        return np.minimum(codes, self._top + 1) << self._shift

    def until(self, keys: Ints, moments: Ints) -> Ints:
        """For each key and moment, how many sorted events stand before the first one that is later.

        Quick where the queries are sorted by key and moment.
        """
        if self._ranks is None:
            needles = np.clip(moments, self._first - 1, self._first + self._length)
            needles -= self._first - 1
        else:
            needles = self._ranked(moments)
        needles |= keys
        return np.searchsorted(self._packed, needles, side="right")

    def starts(self, keys: Ints) -> Ints:
        """For each key, where its events begin."""
        return np.searchsorted(self._packed, keys, side="left")

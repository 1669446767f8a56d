"""Exact sums of whole numbers over ranges: where needed by halves of 32 bits, with those marked that fit no int64."""

from __future__ import annotations

import numpy as np

from cumulant.features.offline.kernel.sums import Floats, int_prefix
from cumulant.features.offline.kernel.timeline import Flags, Ints

_HALF, _LOW = 32, 2**32 - 1


def exact_sum(values: Ints) -> int:
    """The sum of fewer than 2**31 values, of any size."""
    return (int((values >> _HALF).sum()) << _HALF) + int((values & _LOW).sum())


class WholeSums:
    """Sums of int64 values over ranges [lo, hi) of their positions; `extra` values join single ranges."""

    def __init__(self, values: Ints, extra: Ints | None = None) -> None:
        self._wide = (len(values) + 1) * max(_magnitude(values), _magnitude(extra)) >= 2**63
        self._extra = extra
        if self._wide:
            self._high, self._low = int_prefix(values >> _HALF), int_prefix(values & _LOW)
        else:
            self._sums = int_prefix(values)

    def between(self, lo: Ints, hi: Ints, *, with_extra: Flags | None = None) -> tuple[Ints, Flags | None]:
        """The sum over each range, with the extra value where `with_extra`, and where it fits int64 (None: all)."""
        if not self._wide:
            total = self._sums[hi] - self._sums[lo]
            return total if with_extra is None else total + self._joining(with_extra), None
        high, low = self._halves(lo, hi, with_extra)
        fits: Flags = (high >= -(2**31)) & (high < 2**31)
        return (np.where(fits, high, 0) << _HALF) | low, fits

    def floats(self, lo: Ints, hi: Ints, *, with_extra: Flags | None = None) -> Floats:
        """The sum over each range, rounded once."""
        if not self._wide:
            return self.between(lo, hi, with_extra=with_extra)[0].astype(np.float64)
        high, low = self._halves(lo, hi, with_extra)
        return high.astype(np.float64) * 2.0**_HALF + low

    def _halves(self, lo: Ints, hi: Ints, with_extra: Flags | None) -> tuple[Ints, Ints]:
        """The sum as high * 2**32 + low, with low in [0, 2**32)."""
        high, low = self._high[hi] - self._high[lo], self._low[hi] - self._low[lo]
        if with_extra is not None:
            joining = self._joining(with_extra)
            high, low = high + (joining >> _HALF), low + (joining & _LOW)
        return high + (low >> _HALF), low & _LOW

    def _joining(self, with_extra: Flags) -> Ints:
        assert self._extra is not None, "there are no extra values to join"
        return np.where(with_extra, self._extra, 0)


def _magnitude(values: Ints | None) -> int:
    if values is None or not len(values):
        return 0
    return max(-int(values.min()), int(values.max()))

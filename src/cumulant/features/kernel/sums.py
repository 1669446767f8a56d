"""Sums over ranges that are right to the last digits, from prefix sums.

Differences of floating-point prefix sums lose whatever the earlier values were large: one payment of 1e12 spoils
every later window of its card. Here values are cut into whole multiples of powers of two ("limbs"), so that prefix sums
are exact integers and so are their differences. Data of usual range need one limb (whole numbers) or two.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cumulant.features.kernel.timeline import Ints, bits

Floats = npt.NDArray[np.float64]
_LIMIT = 62
#: a limb must be exact as a float, so that a higher one of opposite sign cancels it exactly
_DIGITS = 52
#: so many limbs are joined without a thought to overflow
_FEW = 8
_ENOUGH = 2.0**100
#: powers of two by which a sum is made smaller where it is too large
_LOWERED = 64


class PrefixSums:
    """Exact sums of finite float64 values over ranges [lo, hi) of their positions.

    `extra` values take part in the scale only; `limbs_of` cuts them likewise, so that one of them can join a range.
    """

    def __init__(self, values: Floats, extra: Floats | None = None) -> None:
        largest = float(np.abs(values).max(initial=0.0))
        if extra is not None:
            largest = max(largest, float(np.abs(extra).max(initial=0.0)))
        self._step = min(max(_LIMIT - bits(len(values) + 1), 1), _DIGITS)
        self._exponent = int(np.frexp(largest)[1])
        self._prefixes: list[Ints] = []
        self._extra: list[Ints] = []
        rest, extra_rest, exponent = values, extra, self._exponent
        while not self._prefixes or rest.any() or (extra_rest is not None and extra_rest.any()):
            exponent -= self._step
            limb, rest = _cut(rest, exponent)
            prefix = np.zeros(len(limb) + 1, dtype=np.int64)
            np.cumsum(limb, out=prefix[1:])
            self._prefixes.append(prefix)
            if extra_rest is not None:
                limb, extra_rest = _cut(extra_rest, exponent)
                self._extra.append(limb)

    def between(self, lo: Ints, hi: Ints, *, with_extra: npt.NDArray[np.bool_] | None = None) -> Floats:
        """The sum over each range; where `with_extra` holds, with the extra value of the same position.

        Infinite where the sum is beyond the range of floats.
        """
        return self._joined(self._limbs(lo, hi, with_extra))

    def means(self, lo: Ints, hi: Ints, count: Ints, *, with_extra: npt.NDArray[np.bool_] | None = None) -> Floats:
        """The sum over each range divided by `count` (NaN for 0 / 0); finite even where the sum is not."""
        total = self.between(lo, hi, with_extra=with_extra)
        means: Floats = total / count
        if not (whole := np.isfinite(total)).all():
            at = np.flatnonzero(~whole)
            extra_at = None if with_extra is None else with_extra[at]
            smaller = self._joined(self._limbs(lo[at], hi[at], extra_at, at), lowered=_LOWERED)
            means[at] = _scaled(smaller / count[at], _LOWERED)
        return means

    def _limbs(
        self, lo: Ints, hi: Ints, with_extra: npt.NDArray[np.bool_] | None, at: Ints | slice = slice(None)
    ) -> list[Ints]:
        limbs = [prefix[hi] - prefix[lo] for prefix in self._prefixes]
        if with_extra is not None:
            limbs = [limb + np.where(with_extra, own[at], 0) for limb, own in zip(limbs, self._extra, strict=True)]
        return limbs

    def _joined(self, limbs: list[Ints], *, lowered: int = 0) -> Floats:
        """Limbs, the coarsest first, as one float each: carries are moved up, then they are added from the top.
        The result is smaller by 2**lowered.

        The value so far is exact while it is below 2**53 units and exact enough above, even where it is negative
        and the rest nearly cancels it.
        """
        for at in range(len(limbs) - 1, 0, -1):
            carry = limbs[at] >> self._step
            limbs[at - 1] += carry
            limbs[at] -= carry << self._step
        total = limbs[0].astype(np.float64)
        exponent = np.full(len(total), self._exponent - self._step - lowered) if len(limbs) > _FEW else None
        for limb in limbs[1:]:
            finer = total * 2.0**self._step + limb
            if exponent is None:
                total = finer
                continue
            small = np.abs(total) < _ENOUGH  # above, what follows is beyond the digits of a float
            exponent -= np.where(small, self._step, 0)
            total = np.where(small, finer, total)
        with np.errstate(over="ignore"):  # a sum beyond the range of floats is infinite, which callers make null
            if exponent is not None:
                scaled: Floats = np.ldexp(total, exponent)
                return scaled
            return _scaled(total, self._exponent - self._step * len(limbs) - lowered)


def _cut(values: Floats, exponent: int) -> tuple[Ints, Floats]:
    """Whole multiples of 2**exponent in `values`, and what is left, exactly.

    Towards zero, since rounding up the largest float would overflow.
    """
    units = np.trunc(_scaled(values, -exponent))
    return units.astype(np.int64), values - _scaled(units, exponent)


def _scaled(values: Floats, exponent: int) -> Floats:
    """Values * 2**exponent, without overflow on the way."""
    if -1000 < exponent < 1000:
        return values * 2.0**exponent
    return np.ldexp(values, exponent)


def int_prefix(values: Ints) -> Ints:
    """Prefix sums of whole numbers, in 64 bits."""
    prefix = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=prefix[1:])
    return prefix

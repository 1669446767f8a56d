"""Exact sums over ranges from prefix sums.

Differences of floating-point prefix sums lose digits to large earlier values. Values are cut into whole multiples of
powers of two ("limbs"), so that prefix sums are exact integers. Usual data need one limb (whole numbers) or two.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from cumulant.features.offline.kernel.timeline import Ints, bits

Floats = npt.NDArray[np.float64]
_LIMIT = 62
#: a limb must be exact as a float, so that a higher one of opposite sign cancels it exactly
_DIGITS = 52
#: whole numbers up to it are floats
_EXACT = 1 << 53
#: so many limbs are joined without a thought to overflow
_FEW = 8
_ENOUGH = 2.0**100
#: powers of two by which a sum is made smaller where it is too large
_LOWERED = 64


class PrefixSums:
    """Exact sums of finite float64 values over ranges [lo, hi) of their positions.

    `extra` values share the scale, so that one of them can join a range.
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
        """The sum over each range, with the extra value of its position where `with_extra`; infinite beyond float64."""
        return self._joined(self._limbs(lo, hi, with_extra))

    def means(
        self,
        lo: Ints,
        hi: Ints,
        count: Ints,
        *,
        with_extra: npt.NDArray[np.bool_] | None = None,
        total: Floats | None = None,
    ) -> Floats:
        """The sum over each range divided by `count` (NaN for 0 / 0); finite even where the sum is not.

        `total`: what `between` gives.
        """
        if total is None:
            total = self.between(lo, hi, with_extra=with_extra)
        means: Floats = total / count
        if not (whole := np.isfinite(total)).all():
            at = np.flatnonzero(~whole)
            extra_at = None if with_extra is None else with_extra[at]
            smaller = self._joined(self._limbs(lo[at], hi[at], extra_at, at), lowered=_LOWERED)
            means[at] = _scale(smaller / count[at], _LOWERED)
        return means

    def exact(self, lo: int, hi: int) -> Fraction:
        """The sum over one range, not rounded."""
        total = 0
        for prefix in self._prefixes:
            total = (total << self._step) + int(prefix[hi]) - int(prefix[lo])
        return total * Fraction(2) ** (self._exponent - self._step * len(self._prefixes))

    def _limbs(
        self, lo: Ints, hi: Ints, with_extra: npt.NDArray[np.bool_] | None, at: Ints | slice = slice(None)
    ) -> list[Ints]:
        limbs = [prefix[hi] - prefix[lo] for prefix in self._prefixes]
        if with_extra is not None:
            limbs = [limb + np.where(with_extra, own[at], 0) for limb, own in zip(limbs, self._extra, strict=True)]
        return limbs

    def _joined(self, limbs: list[Ints], *, lowered: int = 0) -> Floats:
        """Limbs, the coarsest first, as one float each, smaller by 2**lowered: the correctly rounded sum."""
        for at in range(len(limbs) - 1, 0, -1):
            carry = limbs[at] >> self._step
            limbs[at - 1] += carry
            limbs[at] -= carry << self._step
        top = self._exponent - self._step - lowered
        if int(np.abs(limbs[0]).max(initial=0)) > _EXACT:
            carry = limbs[0] >> self._step
            limbs[:1] = [carry, limbs[0] - (carry << self._step)]
            top += self._step
        total = _Rounded(limbs[0].astype(np.float64), self._step)
        exponent = np.full(len(total.value), top) if len(limbs) > _FEW else None
        for at, limb in enumerate(limbs[1:], 2):
            if exponent is None:
                total.add(limb, last=at == len(limbs))
                continue
            small = np.abs(total.value) < _ENOUGH  # above, what follows is beyond the digits of a float
            exponent -= np.where(small, self._step, 0)
            total.add(limb, last=at == len(limbs), where=small)
        with np.errstate(over="ignore"):  # a sum beyond the range of floats is infinite, which callers make null
            if exponent is not None:
                scaled: Floats = np.ldexp(total.value, exponent)
                return scaled
            return _scale(total.value, top - self._step * (len(limbs) - 1))


class _Rounded:
    """Whole numbers as floats, to which digits are added below until one does not fit; then all are rounded once."""

    def __init__(self, value: Floats, step: int) -> None:
        self.value = value
        self._step = step
        self._full = np.zeros(len(value), dtype=np.bool_)
        self._middle = np.zeros(len(value))

    def add(self, limb: Ints, *, last: bool, where: npt.NDArray[np.bool_] | None = None) -> None:
        """`value * 2**step + limb`; not multiplied, and nothing but rounded, except `where`."""
        digits = limb.astype(np.float64)
        if self._middle.any():
            self.value = np.where(limb > 0, self.value + self._middle, self.value)
            self._middle[limb > 0] = 0.0
        scale = 2.0**self._step if where is None else np.where(where, 2.0**self._step, 1.0)
        above = self.value * scale
        adds = ~self._full if where is None else where & ~self._full
        total = np.where(adds, above + digits, above) if self._full.any() or where is not None else above + digits
        self.value = total
        if last:
            return
        self._middle *= scale
        lost = np.where(adds, digits - (total - above), 0.0)  # exact, as `above` has more digits (Dekker's sum)
        up = np.nextafter(total, np.inf) - total
        self._middle = np.where((lost > 0) & (2 * lost == up), up, self._middle)
        self._full |= lost != 0.0


def _cut(values: Floats, exponent: int) -> tuple[Ints, Floats]:
    """Whole multiples of 2**exponent in `values`, towards zero, and the exact remainder."""
    units = np.trunc(_scale(values, -exponent))
    return units.astype(np.int64), values - _scale(units, exponent)


def _scale(values: Floats, exponent: int) -> Floats:
    """Values * 2**exponent, without overflow on the way."""
    if -1000 < exponent < 1000:
        return values * 2.0**exponent
    return np.ldexp(values, exponent)


def int_prefix(values: Ints) -> Ints:
    """Prefix sums of whole numbers, in 64 bits."""
    prefix = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=prefix[1:])
    return prefix

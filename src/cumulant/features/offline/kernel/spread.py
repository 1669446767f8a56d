"""Sample standard deviations over ranges, by sums of squares around the mean of each key.

Ranges far from that mean, relative to their spread, are computed again from their values (two-pass formula); ranges of
one repeated value are exactly 0.
"""

from __future__ import annotations

import numpy as np

from cumulant.features.offline.kernel.ranges import Gathered, gather
from cumulant.features.offline.kernel.sums import Floats, PrefixSums
from cumulant.features.offline.kernel.timeline import Flags, Ints

#: below this share of the sum of squares, the difference has lost more than six digits
_LOST = 1e-6
_CHUNK = 1 << 20
#: a value that is so many times as far off as all of its key is not summed with their squares
_FAR = 2.0**20
#: magnitudes whose squares, and those of their differences, are floats
_SQUARABLE = (2.0**-400, 2.0**400)


def deviations(values: Floats, starts: Ints, lo: Ints, hi: Ints, *, own: Floats, with_own: Flags) -> Floats:
    """The standard deviation over each range [lo, hi) of `values`; NaN below two values.

    `starts`: where the key of each value begins. Where `with_own`, the value of `own` at that position joins the range.
    """
    if not len(values):
        return np.full(len(lo), np.nan)  # nothing but the queries' own values, one each
    count = hi - lo + with_own
    begins = starts == np.arange(len(starts))
    heads, keys = np.flatnonzero(begins), np.cumsum(begins) - 1
    at = np.minimum(lo, len(values) - 1)
    centre, unit = values[starts], _exponents(values, heads, keys)
    off = np.ldexp(values, -unit) - np.ldexp(centre, -unit)
    scale = _exponents(off, heads, keys)
    off = np.ldexp(off, -scale)
    with np.errstate(over="ignore", invalid="ignore"):
        own_off = np.ldexp(np.ldexp(own, -unit[at]) - np.ldexp(centre, -unit)[at], -scale[at])
        far = with_own & ~(np.abs(own_off) < _FAR)
    own_off = np.where(with_own & ~far, own_off, 0.0)
    totals = PrefixSums(off, own_off).between(lo, hi, with_extra=with_own)
    squares = PrefixSums(off * off, own_off * own_off).between(lo, hi, with_extra=with_own)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        rest = squares - totals * totals / count
        result: Floats = np.ldexp(np.sqrt(np.maximum(rest, 0.0) / (count - 1)), (scale + unit)[at])
    constant = _constant(values, lo, hi, own, with_own)
    result[constant] = 0.0
    result[count < 2] = np.nan
    lost = np.flatnonzero(((rest <= squares * _LOST) | far) & ~constant & (count >= 2))
    if len(lost):
        result[lost] = _two_pass(values, lo[lost], hi[lost], own[lost], with_own[lost])
    return result


def gathered_deviations(values: Gathered) -> Floats:
    """The standard deviation of each gathered range by the two-pass formula; NaN below two values."""
    numbers, lengths = values.numbers.astype(np.float64, copy=False), values.lengths
    smallest, largest = (each.astype(np.float64, copy=False) for each in (values.smallest, values.largest))
    magnitudes = np.maximum(-smallest, largest)
    exponents = None
    if magnitudes.max() > _SQUARABLE[1] or (magnitudes + (magnitudes == 0.0)).min() < _SQUARABLE[0]:
        exponents = np.frexp(magnitudes)[1]  # powers of two, by which a division loses nothing
        numbers = np.ldexp(numbers, np.repeat(-exponents, lengths))
    off = numbers - np.repeat(np.add.reduceat(numbers, values.begins) / lengths, lengths)
    rest = np.add.reduceat(off, values.begins)  # of the rounded mean
    off *= off
    squares = np.add.reduceat(off, values.begins) - rest * rest / lengths
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.sqrt(np.maximum(squares, 0.0) / (lengths - 1))
    result[smallest == largest] = 0.0
    result[lengths < 2] = np.nan
    if exponents is None:
        return result
    with np.errstate(over="ignore"):  # beyond the range of floats it is infinite, which callers make null
        scaled: Floats = np.ldexp(result, exponents)
    return scaled


def _exponents(values: Floats, heads: Ints, keys: Ints) -> Ints:
    """For each value the power of two that brings the largest magnitude of its key near 1."""
    largest = np.maximum.reduceat(np.abs(values), heads)
    return np.frexp(largest)[1].astype(np.int64)[keys]


def _constant(values: Floats, lo: Ints, hi: Ints, own: Floats, with_own: Flags) -> Flags:
    """Whether each range holds one value, repeated."""
    changes = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values[1:] != values[:-1], out=changes[2:])
    last = np.maximum(hi, 1)
    same: Flags = changes[last] == changes[np.minimum(lo + 1, last)]
    filled = hi > lo
    if with_own.any():
        same &= ~(with_own & filled) | (values[np.maximum(hi - 1, 0)] == own)
    same |= ~filled
    return same


def _two_pass(values: Floats, lo: Ints, hi: Ints, own: Floats, with_own: Flags) -> Floats:
    """Each range from its values, a million at a time."""
    result = np.empty(len(lo))
    ends = np.cumsum(hi - lo + with_own)
    start = 0
    while start < len(lo):
        base = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, base + _CHUNK, side="right")), start + 1)
        part = slice(start, stop)
        result[part] = gathered_deviations(gather(values, lo[part], hi[part], own=own[part], with_own=with_own[part]))
        start = stop
    return result

"""Sample standard deviations over ranges, by sums of squares around the mean of each key.

Ranges far from that mean, relative to their spread, are computed again from their values (two-pass formula); ranges of
one repeated value are exactly 0.
"""

from __future__ import annotations

import numpy as np

from cumulant.features.offline.kernel.sums import Floats, PrefixSums
from cumulant.features.offline.kernel.timeline import Flags, Ints

#: below this share of the sum of squares, the difference has lost more than six digits
_LOST = 1e-6
_CHUNK = 1 << 20
#: a value that is so many times as far off as all of its key is not summed with their squares
_FAR = 2.0**20


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


def few_deviations(values: Floats, lo: Ints, hi: Ints, *, own: Floats, with_own: Flags) -> Floats:
    """As `deviations`, all by the two-pass formula: faster where the ranges together hold some thousands of values."""
    if not len(values):
        return np.full(len(lo), np.nan)
    result = np.zeros(len(lo))
    several = hi - lo + with_own >= 2
    result[~several] = np.nan
    at = np.flatnonzero(several & ~_constant(values, lo, hi, own, with_own))
    if len(at):
        result[at] = _two_pass(values, lo[at], hi[at], own[at], with_own[at])
    return result


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
        result[part] = _two_pass_chunk(values, lo[part], hi[part], own[part], with_own[part])
        start = stop
    return result


def _two_pass_chunk(values: Floats, lo: Ints, hi: Ints, own: Floats, with_own: Flags) -> Floats:
    lengths = hi - lo + with_own
    owner = np.repeat(np.arange(len(lo)), lengths)
    begins = np.cumsum(lengths) - lengths
    within = np.arange(len(owner)) - begins[owner]
    at = lo[owner] + within
    is_own = at >= hi[owner]
    gathered = np.where(is_own, own[owner], values[np.minimum(at, len(values) - 1)])
    # powers of two, by which a division loses nothing
    exponents = np.frexp(np.maximum.reduceat(np.abs(gathered), begins))[1]
    gathered = np.ldexp(gathered, -exponents[owner])
    off = gathered - (np.add.reduceat(gathered, begins) / lengths)[owner]
    off -= (np.add.reduceat(off, begins) / lengths)[owner]
    result: Floats = np.sqrt(np.add.reduceat(off * off, begins) / (lengths - 1))
    return np.ldexp(result, exponents)

"""Whether a reference stays where it is: of one that moves, only the newest part is a measure of what follows."""

from __future__ import annotations

import math

import numpy as np

from cumulant.statistics.drift.effects import excess
from cumulant.statistics.drift.evidence import two_samples
from cumulant.statistics.drift.intervals import squared
from cumulant.statistics.rows import Floats

#: fewest blocks whose halves are compared
FEWEST = 16
#: degree of the curve that a trend may follow
_CURVE = 3
#: chance of leaving a part of a steady reference out, at each halving
_LEVEL = 0.01


def steady_from(counts: Floats, least: float) -> int:
    """The block from which on the shares of `counts` [blocks, cells], in order of time, do not move by themselves.

    Halves are compared, as often as the older one is further than `least` (a Jensen-Shannon distance) from the newer
    and that is not chance. What blocks vary by is what is left beside a smooth curve: a trend would else count as
    noise, and hide itself and every later change.
    """
    first = 0
    while len(counts) - first >= FEWEST:
        middle = first + (len(counts) - first) // 2
        if not _apart(counts[first:middle], counts[middle:], least):
            break
        first = middle
    return first


def _apart(older: Floats, newer: Floats, least: float) -> bool:
    n, m = float(older.sum()), float(newer.sum())
    if min(n, m) <= 0:
        return False
    distance = float(squared(older.sum(axis=0)[None], newer.sum(axis=0)[None])[0])
    kinds = int(((older.sum(axis=0) + newer.sum(axis=0)) > 0).sum())
    if math.sqrt(excess(distance, cells=kinds, rows=n * m / (n + m))) < least:
        return False
    return two_samples(_level(older), _level(newer)).p < _LEVEL


def _level(counts: Floats) -> Floats:
    """The same blocks without their trend: shares as far from their mean as they were from a smooth curve."""
    sizes = counts.sum(axis=1)
    filled = counts[sizes > 0]
    sizes = sizes[sizes > 0]
    mean = filled.sum(axis=0) / sizes.sum()
    root = np.sqrt(sizes)[:, None]
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(sizes)), min(_CURVE, len(sizes) // 4))
    curve = powers @ np.linalg.lstsq(root * powers, root * (filled / sizes[:, None] - mean), rcond=None)[0]
    found: Floats = np.maximum(filled - sizes[:, None] * curve, 0.0)
    return found

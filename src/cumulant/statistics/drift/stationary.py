"""The stationary part of a reference: if a reference drifts, only its newest part is comparable with later data."""

from __future__ import annotations

import math

import numpy as np

from cumulant.statistics.drift.effects import excess
from cumulant.statistics.drift.evidence import two_samples
from cumulant.statistics.drift.intervals import squared_distances
from cumulant.statistics.rows import Floats

#: fewest blocks whose halves are compared
FEWEST = 16
#: degree of the curve that a trend may follow
_CURVE = 3
#: chance of leaving a part of a steady reference out, at each halving
_LEVEL = 0.01
#: chance of taking a steady reference for one with a slope, which only makes the comparison more cautious
_LEVEL_OF_SLOPE = 0.05
#: fewest blocks of a straight line, and the variance of its end over that of the mean of the same blocks
_FEWEST_OF_LINE, LEVERAGE = 5, 4.0


def steady_from(counts: Floats, least: float) -> int:
    """The block from which on the shares of `counts` [blocks, cells], in order of time, do not move by themselves.

    Halves are compared, as often as the older one is further than `least` (a Jensen-Shannon distance) from the newer
    and that is not chance.
    """
    first = 0
    while len(counts) - first >= FEWEST:
        middle = first + (len(counts) - first) // 2
        if not _differ(counts[first:middle], counts[middle:], least):
            break
        first = middle
    return first


def has_slope(counts: Floats) -> bool:
    """Whether the newer half of the blocks of `counts` [blocks, cells] differs from the older half by any amount."""
    older, newer = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    if len(counts) < FEWEST or not older.sum() or not newer.sum():
        return False
    return two_samples(_detrend(older), _detrend(newer)).p < _LEVEL_OF_SLOPE


def shift_to_trend_end(counts: Floats) -> Floats:
    """The blocks of `counts` [blocks, cells] at the level that a straight line through their shares reaches at the end.

    The end of a line is less certain than a mean: its variance is `LEVERAGE` times as large.
    """
    sizes = counts.sum(axis=1)
    filled, sizes = counts[sizes > 0], sizes[sizes > 0]
    if len(sizes) < _FEWEST_OF_LINE:
        return counts
    order = np.arange(len(sizes), dtype=np.float64)
    place = order - np.average(order, weights=sizes)
    slope = place @ filled / float(sizes @ place**2)
    moved: Floats = np.maximum(filled + sizes[:, None] * np.outer(place[-1] + 0.5 - place, slope), 0.0)
    return moved


def _differ(older: Floats, newer: Floats, least: float) -> bool:
    n, m = float(older.sum()), float(newer.sum())
    if min(n, m) <= 0:
        return False
    distance = float(squared_distances(older.sum(axis=0)[None], newer.sum(axis=0)[None])[0])
    kinds = int(((older.sum(axis=0) + newer.sum(axis=0)) > 0).sum())
    if math.sqrt(excess(distance, cells=kinds, rows=n * m / (n + m))) < least:
        return False
    return two_samples(_detrend(older), _detrend(newer)).p < _LEVEL


def _detrend(counts: Floats) -> Floats:
    sizes = counts.sum(axis=1)
    filled = counts[sizes > 0]
    sizes = sizes[sizes > 0]
    mean = filled.sum(axis=0) / sizes.sum()
    root = np.sqrt(sizes)[:, None]
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(sizes)), min(_CURVE, len(sizes) // 4))
    curve = powers @ np.linalg.lstsq(root * powers, root * (filled / sizes[:, None] - mean), rcond=None)[0]
    detrended: Floats = np.maximum(filled - sizes[:, None] * curve, 0.0)
    return detrended

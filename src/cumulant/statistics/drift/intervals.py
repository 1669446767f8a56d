"""The Jensen-Shannon distance less the expected sampling noise, with its interval from resampled blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cumulant.statistics.bootstrap import draw
from cumulant.statistics.drift.effects import excess
from cumulant.statistics.records import LEVEL
from cumulant.statistics.rows import Floats

RESAMPLES = 400
#: below this number of blocks, rows are drawn instead, fewer by the design effect
_FEW = 8


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A distance from 0 to 1 and its interval at `level`."""

    value: float
    low: float
    high: float
    level: float = LEVEL


def effect(reference: Floats, current: Floats, *, design: float = 1.0, seed: int = 0, level: float = LEVEL) -> Effect:
    """Jensen-Shannon distance, base 2, of counts [blocks, cells] each, corrected for chance as `excess` does.

    Whole blocks are resampled where there are enough, else rows; the bias that resamples show is subtracted.
    """
    n, m = float(reference.sum()), float(current.sum())
    cells = int(((reference.sum(axis=0) + current.sum(axis=0)) > 0).sum())
    rows = n * m / (n + m) / design if n and m else 0.0
    value = excess(
        float(squared_distances(reference.sum(axis=0)[None], current.sum(axis=0)[None])[0]), cells=cells, rows=rows
    )
    generator = np.random.default_rng(seed)
    drawn = squared_distances(_resample(reference, design, generator), _resample(current, design, generator))
    once = excess(1.0, cells=cells, rows=rows)
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - 2 * (1.0 - once)
    low, high = (math.sqrt(min(max(float(end), 0.0), 1.0)) for end in ends)
    distance = math.sqrt(value)
    return Effect(value=distance, low=min(low, distance), high=max(high, distance), level=level)


def squared_distances(first: Floats, second: Floats) -> Floats:
    """Squared Jensen-Shannon distances of shares or counts [draws, cells]: [draws]."""
    from scipy.special import xlogy

    p = first / np.maximum(first.sum(axis=1, keepdims=True), 1e-300)
    q = second / np.maximum(second.sum(axis=1, keepdims=True), 1e-300)
    middle = (p + q) / 2
    bits = (xlogy(p, p) + xlogy(q, q)) / 2 - xlogy(middle, middle)
    distances: Floats = np.clip(bits.sum(axis=1) / math.log(2), 0.0, 1.0)
    return distances


def _resample(counts: Floats, design: float, generator: np.random.Generator) -> Floats:
    filled = counts[counts.sum(axis=1) > 0]
    if len(filled) >= _FEW:
        weighted: Floats = draw(len(filled), resamples=RESAMPLES, seed=int(generator.integers(1 << 31))) @ filled
        return weighted
    total = filled.sum(axis=0)
    rows = max(round(float(total.sum()) / design), 1)
    return generator.multinomial(rows, total / total.sum(), size=RESAMPLES).astype(np.float64)

"""Reliability diagrams: the isotonic fit of what happened to what was predicted, with a consistency band.

**Fit.** Isotonic regression of outcomes on predicted probabilities, by pool-adjacent-violators: the CORP diagram of
Dimitriadis, Gneiting and Jordan 2021 (doi:10.1073/pnas.2016191118). It needs no bins.

**Band.** Where the fit of a *calibrated* model would lie: predictions are drawn with replacement, outcomes are drawn
from them, and the fit is made again (consistency resampling: Broecker and Smith 2007, doi:10.1175/WAF993.1; section 2B
of Dimitriadis et al.). It holds at each point by itself, and takes rows as independent given their predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics.performance.calibration import isotonic, summed
from cumulant.statistics.records import LEVEL
from cumulant.statistics.rows import Floats

RESAMPLES = 400
#: distinct predictions; neighbours among more are put together, which no drawing shows
_MOST_PREDICTIONS = 2000
#: of the curve, at most; beside them stands the curve's first and last point
_POINTS = 100


@dataclass(frozen=True)
class ReliabilityCurve:
    """Points of the fit by rising prediction, and the ends of the band there; each array is [points]."""

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats


def reliability_curve(
    predicted: Floats, happened: Floats, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> ReliabilityCurve:
    """The fit of `happened` [n] (0 or 1) to the probabilities `predicted` [n], with its consistency band.

    Raises:
        ValueError: there are no rows.
    """
    if not len(predicted):
        raise ValueError("a reliability curve needs rows with outcomes; there are none")
    values, rows, hits = _distinct(predicted, happened)
    fitted = isotonic(hits / rows, rows)
    at = _points(values, fitted, rows)
    drawn = _consistent_fits(values, rows, values[at], resamples=resamples, seed=seed)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return ReliabilityCurve(values[at], fitted[at], low, high)


def _distinct(predicted: Floats, happened: Floats) -> tuple[Floats, Floats, Floats]:
    """Distinct predictions, and the rows and the hits of each; of very many, means of neighbours with equal rows."""
    values, place = np.unique(np.clip(predicted, 0.0, 1.0), return_inverse=True)
    rows, hits = summed(place, np.ones(len(place))), summed(place, happened)
    if len(values) <= _MOST_PREDICTIONS:
        return values, rows, hits
    group = np.minimum(np.cumsum(rows) * _MOST_PREDICTIONS / rows.sum(), _MOST_PREDICTIONS - 1).astype(np.int64)
    group = np.unique(group, return_inverse=True)[1]
    together = summed(group, rows)
    return summed(group, values * rows) / together, together, summed(group, hits)


def _points(values: Floats, fitted: Floats, rows: Floats) -> NDArray[np.int64]:
    """Indices of the corners of the fit, where it has few, and of quantiles of the rows between them."""
    steps = np.flatnonzero(np.diff(fitted) > 0)
    corners = np.unique(np.r_[0, steps, steps + 1, len(values) - 1])
    if len(corners) > _POINTS // 2:
        corners = corners[np.unique(np.linspace(0, len(corners) - 1, _POINTS // 2).round().astype(np.int64))]
    whole = np.cumsum(rows)
    quantiles = np.searchsorted(whole, np.linspace(0, whole[-1], _POINTS - len(corners)))
    return np.unique(np.r_[corners, quantiles.clip(0, len(values) - 1)]).astype(np.int64)


def _consistent_fits(values: Floats, rows: Floats, at: Floats, *, resamples: int, seed: int) -> Floats:
    """[resamples, points]: the fits of drawn outcomes of a model whose predictions are true, read at `at`."""
    generator, total = np.random.default_rng(seed), int(rows.sum())
    drawn = np.empty((resamples, len(at)))
    for number in range(resamples):
        counts = generator.multinomial(total, rows / total)
        chosen = counts > 0
        weights = counts[chosen].astype(np.float64)
        hits = generator.binomial(counts[chosen], values[chosen])
        drawn[number] = np.interp(at, values[chosen], isotonic(hits / weights, weights))
    return drawn

"""The calibration of scores as probabilities, its error, and the loss that it causes.

The map is isotonic regression (Zadrozny and Elkan 2002, doi:10.1145/775047.775151), linear between the scores it was
fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics.bootstrap import estimate
from cumulant.statistics.metrics import METRICS
from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.rows import Codes, Floats, Rows
from cumulant.statistics.sums import CLIP

#: a map is drawn again from at most this many points: enough for its shape, and quick
_POINTS = 400


@dataclass(frozen=True)
class Calibrator:
    """A rising map from scores to probabilities, and what it was learned from.

    scores: [points] distinct, rising. values: [points] their probabilities. rows: [points] how many rows had each.
    """

    scores: Floats
    values: Floats
    rows: Floats

    @classmethod
    def fit(cls, truth: Floats, score: Floats) -> Calibrator:
        """The isotonic map of `score` [n] to the share of `truth` [n].

        Raises:
            ValueError: there are no rows.
        """
        if not len(score):
            raise ValueError("a calibration needs rows with labels; there are none")
        points, place = np.unique(score, return_inverse=True)
        rows: Floats = np.bincount(place).astype(np.float64)
        return cls(points, isotonic(summed(place, truth) / rows, rows), rows)

    def __call__(self, score: Floats) -> Floats:
        """Probabilities of `score` [n]; beyond the scores that were seen, the outermost values."""
        return np.interp(score, self.scores, self.values)

    def drawn(self, count: int = 300, *, seed: int = 0) -> tuple[Calibrator, ...]:
        """Maps that as many other rows would have given: labels are drawn from this one, and the map fitted again."""
        generator, coarse = np.random.default_rng(seed), self._coarse()
        rows = coarse.rows.astype(np.int64)
        chances = np.clip(coarse.values, 0, 1)
        return tuple(
            Calibrator(coarse.scores, isotonic(generator.binomial(rows, chances) / rows, coarse.rows), coarse.rows)
            for _ in range(count)
        )

    def _coarse(self) -> Calibrator:
        """At most _POINTS points, neighbours put together."""
        place = np.minimum(np.cumsum(self.rows) * _POINTS / self.rows.sum(), _POINTS - 1).astype(np.int64)
        rows = summed(place, self.rows)
        nonempty = rows > 0
        scores, values = (
            summed(place, self.rows * column)[nonempty] / rows[nonempty] for column in (self.scores, self.values)
        )
        return Calibrator(scores, values, rows[nonempty])


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The rising sequence nearest to `values` [n] in weighted squares."""
    from scipy.optimize import isotonic_regression

    fitted: Floats = isotonic_regression(values, weights=weights).x
    return fitted


def summed(place: NDArray[np.int64], values: Floats) -> Floats:
    """`values` [n] summed over each place, numbered from 0."""
    return np.asarray(np.bincount(place, values), dtype=np.float64)


def calibration_error(rows: Rows, *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The expected calibration error over ten bins with its interval over clusters, moved back by its own noise."""
    return estimate(METRICS["calibration_error"], rows, resamples=400, level=level, seed=seed)


def cross_fitted(truth: Floats, score: Floats, fold: Codes) -> Floats:
    """[n] each row calibrated by a map of the other folds' rows: how the map does on rows it has not seen.

    Raises:
        ValueError: there are fewer than two folds.
    """
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise ValueError("rows are calibrated by those of other folds; there is one fold only")
    answer = np.empty(len(score))
    for number in numbers:
        inside = fold == number
        answer[inside] = Calibrator.fit(truth[~inside], score[~inside])(score[inside])
    return answer


def fit_recalibration(truth: Floats, score: Floats, weight: Floats, *, strength: float = 10.0) -> tuple[float, float]:
    """Slope and offset on the logit of `score` [n] that fit `truth` [n] best, drawn to (1, 0) as by `strength` rows.

    Platt 1999, Probabilistic outputs for support vector machines, with a normal prior; by Newton's method.
    """
    margin = logit(score)
    parameters = np.array([1.0, 0.0])
    for _ in range(25):
        predicted = 1 / (1 + np.exp(-np.clip(parameters[0] * margin + parameters[1], -500, 500)))
        error, spread = weight * (predicted - truth), weight * predicted * (1 - predicted)
        pull = strength * 0.25 * (parameters - [1.0, 0.0])
        slope = np.array([(error * margin).sum(), error.sum()]) + pull
        cross = (spread * margin).sum()
        bend = np.array([[(spread * margin**2).sum(), cross], [cross, spread.sum()]]) + strength * 0.25 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        parameters = parameters - step
        if np.abs(step).max() < 1e-8:
            break
    return float(parameters[0]), float(parameters[1])


def logit(score: Floats) -> Floats:
    """The logarithm of the odds of `score` [n], kept finite at 0 and 1."""
    clipped = np.clip(score, CLIP, 1 - CLIP)
    answer: Floats = np.log(clipped / (1 - clipped))
    return answer

"""Sigmoid calibration, from a closed list: what has an ONNX form and a numpy reference."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cumulant.core.servable import Calibration
from cumulant.statistics.performance.calibration import logit

Floats = NDArray[np.float64]

#: probabilities are kept this far from 0, where the logarithm is infinite
_TINY = 1e-15
#: the log loss of rows not fitted on must fall by this part for a sigmoid to be kept
_WORTHWHILE = 0.002
#: fewer positives or negatives calibrate noise
_LEAST = 100


def apply(calibration: Calibration, p: Floats) -> Floats:
    """The calibrated answers; only `sigmoid` changes anything."""
    if calibration.kind == "none":
        return p
    answer: Floats = 1 / (1 + np.exp(-(calibration.a * logit(p) + calibration.b)))
    return answer


def fit_sigmoid(truth: Floats, p: Floats) -> Calibration:
    """Slope and offset on the logit that maximise the likelihood (Platt 1999, Probabilistic outputs for SVMs)."""
    from scipy.optimize import minimize

    score = logit(p)

    def loss(parameters: Any) -> tuple[float, Floats]:
        margin = parameters[0] * score + parameters[1]
        error = 1 / (1 + np.exp(-np.clip(margin, -500, 500))) - truth
        value = np.mean(np.logaddexp(0, margin) - truth * margin)
        return float(value), np.array([np.mean(error * score), np.mean(error)])

    solution = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), (None, None)])
    return Calibration(kind="sigmoid", a=float(solution.x[0]), b=float(solution.x[1]))


def choose(mode: Literal["auto", "none", "sigmoid"], truth: Floats, p: Floats, part: NDArray[np.int64]) -> Calibration:
    """The calibration of out-of-fold answers `p` [n]; `part` [n] is the fold that each comes from.

    `auto` keeps a sigmoid only where, fitted on the other folds, it lowers the log loss of each fold's rows in
    the mean: a sigmoid fitted and judged on the same rows always seems to help.
    """
    if mode == "none" or min(truth.sum(), (1 - truth).sum()) < _LEAST:
        return Calibration()
    fitted = fit_sigmoid(truth, p)
    if mode == "sigmoid":
        return fitted
    before = after = 0.0
    parts = np.unique(part) if len(np.unique(part)) > 1 else np.arange(2)
    place = part if len(np.unique(part)) > 1 else np.arange(len(p)) % 2
    for number in parts:
        judged = place == number
        if not 0 < truth[~judged].sum() < (~judged).sum():
            continue
        other = fit_sigmoid(truth[~judged], p[~judged])
        before += _loss(truth[judged], p[judged])
        after += _loss(truth[judged], apply(other, p[judged]))
    return fitted if after < before * (1 - _WORTHWHILE) else Calibration()


def _loss(truth: Floats, p: Floats) -> float:
    return float(-np.log(np.clip(np.where(truth > 0.5, p, 1 - p), _TINY, 1)).sum())

"""Split conformal prediction: sets of possible answers, with an error rate that holds for any model.

Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World; Angelopoulos & Bates (2023), Conformal
Prediction: A Gentle Introduction, sections 1 to 4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics.rows import Floats

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def conformal_quantile(scores: Floats, error: float) -> float:
    """The ceil((n + 1)(1 - error))-th smallest of `scores` [n]: at least 1 - error of new scores do not exceed it.

    Infinite where n is too small to promise that, so that nothing is ruled out.

    Raises:
        ValueError: `error` is not between 0 and 1.
    """
    _check(error)
    # The product is rounded before the ceiling: (n + 1)(1 - 0.1) may come out one unit too high.
    place = math.ceil(round((len(scores) + 1) * (1 - error), 9))
    return float(np.partition(scores, place - 1)[place - 1]) if 0 < place <= len(scores) else math.inf


def p_values(calibration: Floats, scores: Floats) -> Floats:
    """[n] conformal p-values: the share of calibration scores, and the row itself, that are at least as large.

    A label stays in the set of error rate `error` where its p-value is above it (Vovk et al., section 2.2).
    """
    ordered = np.sort(calibration)
    larger = len(ordered) - np.searchsorted(ordered, scores, side="left")
    values: Floats = (larger + 1) / (len(ordered) + 1)
    return values


def lac_scores(probabilities: Floats) -> Floats:
    """[n, k] of probabilities [n, k]: one less the label's probability (LAC: Sadinle, Lei & Wasserman 2019)."""
    return 1 - probabilities


def aps_scores(probabilities: Floats) -> Floats:
    """[n, k] of probabilities [n, k]: the sum of those at least as large (APS, not randomised: Romano et al. 2020)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    summed = np.cumsum(ranked, axis=1)
    for place in range(ranked.shape[1] - 2, -1, -1):
        tied = ranked[:, place] == ranked[:, place + 1]
        summed[tied, place] = summed[tied, place + 1]
    scores = np.empty_like(summed)
    np.put_along_axis(scores, order, summed, axis=1)
    return scores


def label_p_values(calibration: Floats, target: Integers, scores: Floats, *, by_class: bool = True) -> Floats:
    """[n, k] the p-value of each label for rows whose labels have `scores` [n, k].

    `calibration` [m, k] are the scores of rows whose labels are `target` [m]. `by_class` compares a label with the
    calibration rows of its own class only (Mondrian; Vovk et al., section 4.5): the error rate then holds in each
    class, also in a rare one. A class without rows is never ruled out (p-value 1).
    """
    own = calibration[np.arange(len(target)), target]
    columns = [
        p_values(own[target == label] if by_class else own, scores[:, label]) for label in range(scores.shape[1])
    ]
    return np.stack(columns, axis=1)


def prediction_sets(values: Floats, error: float) -> Flags:
    """[n, k] which labels stay possible, of p-values [n, k].

    Raises:
        ValueError: `error` is not between 0 and 1.
    """
    _check(error)
    # The same rounding as in `conformal_quantile`: a p-value that equals the error rate rules a label out.
    possible: Flags = values > error + 1e-12
    return possible


def prediction_interval(calibration: Floats, target: Floats, predicted: Floats, error: float) -> tuple[Floats, Floats]:
    """Low and high ends [n] about `predicted` [n], from predictions `calibration` [m] whose truth is `target` [m].

    The width is the same for every row: twice the conformal quantile of the absolute residuals (Lei et al. 2018).
    Infinite where m is too small.

    Raises:
        ValueError: `error` is not between 0 and 1.
    """
    half = conformal_quantile(np.abs(calibration - target), error)
    return predicted - half, predicted + half


def _check(error: float) -> None:
    if not 0 < error < 1:
        raise ValueError(f"an error rate lies between 0 and 1, not at {error}")

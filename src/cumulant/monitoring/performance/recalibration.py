"""Sums of windows, by which the next window's scores are recalibrated and changes are detected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from cumulant.statistics.performance.calibration import fit_recalibration, logit
from cumulant.statistics.rows import Floats

Task = Literal["binary", "multiclass", "regression"]

_BINS = 120
#: logits beyond this lie in the outermost bins
_FAR = 12.0
#: rows with which a linear calibration is drawn to the identity
_STRENGTH = 10.0


class CalibrationSums(msgspec.Struct, frozen=True, kw_only=True):
    """A window in sums.

    Binary: weight, weighted logit and positives in each bin of the logit. Several classes: nothing. Regression: the
    sums of weight, score, truth, squared score and score x truth. `blocks`, `rate` and `rate_squares`: of the block
    means of the truth.
    """

    sums: tuple[tuple[float, ...], ...]
    blocks: int
    rate: float
    rate_squares: float


def sum_window(task: Task, truth: Floats, score: Floats, weight: Floats, rates: Floats) -> CalibrationSums:
    """What rows [n] leave behind; `rates` [blocks] are the block means of the truth."""
    if task == "binary":
        margin = np.clip(logit(score), -_FAR, _FAR)
        place = np.minimum(((margin + _FAR) / (2 * _FAR) * _BINS).astype(np.int64), _BINS - 1)
        columns = (weight, weight * margin, weight * truth)
        sums = [np.bincount(place, column, _BINS) for column in columns]
    elif task == "multiclass":
        sums = []
    else:
        sums = [np.array([(weight * v).sum()]) for v in (np.ones_like(score), score, truth, score**2, score * truth)]
    return CalibrationSums(
        sums=tuple(tuple(float(v) for v in column) for column in sums),
        blocks=len(rates),
        rate=float(rates.sum()),
        rate_squares=float((rates**2).sum()),
    )


def combine_sums(pasts: Sequence[CalibrationSums]) -> CalibrationSums:
    sums = np.sum([window.sums for window in pasts], axis=0)
    return CalibrationSums(
        sums=tuple(tuple(float(v) for v in column) for column in sums),
        blocks=sum(window.blocks for window in pasts),
        rate=sum(window.rate for window in pasts),
        rate_squares=sum(window.rate_squares for window in pasts),
    )


def learn_calibration(task: Task, history: CalibrationSums) -> tuple[float, float]:
    """Slope and offset, on the logit or of the number itself, that fit the truth of these windows best."""
    sums = np.asarray(history.sums)
    if task == "binary":
        weight, margins, positives = sums[:, sums[0] > 0]
        score = 1 / (1 + np.exp(-margins / weight))
        return fit_recalibration(positives / weight, score, weight)
    rows, score, truth, squares, products = (float(column[0]) for column in sums)
    spread = squares / rows - (score / rows) ** 2
    shared = products / rows - score * truth / rows**2
    ridge = _STRENGTH * max(spread, 1e-12) / rows
    slope = (shared + ridge) / (spread + ridge) if spread > 0 else 1.0
    return slope, truth / rows - slope * score / rows


def apply_calibration(task: Task, calibration: tuple[float, float], score: Floats) -> Floats:
    """`score` [n] calibrated anew."""
    slope, offset = calibration
    if task == "regression":
        return slope * score + offset
    probability: Floats = 1 / (1 + np.exp(-np.clip(slope * logit(score) + offset, -500, 500)))
    return probability


def class_counts(history: CalibrationSums) -> tuple[Floats, Floats]:
    """[bins] rows of the negative and of the positive class by their score; for binary."""
    weight, _, positives = np.asarray(history.sums)
    return np.maximum(weight - positives, 0.0), positives


def bin_scores(*histories: CalibrationSums) -> Floats:
    """[bins] the mean score of each bin over these windows; of the middle of a bin where there is none."""
    sums = np.sum([history.sums for history in histories], axis=0)
    middle = (np.arange(_BINS) + 0.5) / _BINS * 2 * _FAR - _FAR
    margin = np.divide(sums[1], sums[0], out=middle, where=sums[0] > 0)
    scores: Floats = 1 / (1 + np.exp(-margin))
    return scores

"""The log loss of several classes without labels, and whether calibrations of single classes go together.

The expected log loss of a row is the sum over classes of the calibrated P(class k | score of k) times -log of the
score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

from cumulant.statistics.performance.calibration import Calibrator
from cumulant.statistics.records import LEVEL, Estimate
from cumulant.statistics.rows import Floats
from cumulant.statistics.sums import CLIP

#: maps that show how surely the reference says what the sums are
_MAPS = 50
#: how far the mean of the sums may be from one
_TOLERANCE = 0.02
#: an expected calibration error of scores surely above this is one that has to be corrected
_OFF = 0.01
#: how far the distribution of a class's scores may move (Kolmogorov-Smirnov), beyond noise, where it is corrected
_MOVED = 0.05


def class_probabilities(calibrators: Sequence[Calibrator], score: Floats) -> Floats:
    """[n, classes] of `score` [n, classes], each calibrated by itself."""
    return np.column_stack([calibrator(score[:, place]) for place, calibrator in enumerate(calibrators)])


def carry_refusal(calibrator: Calibrator, off: Estimate, score: Floats) -> str | None:
    """Why a correction of scores, off by `off` on the reference, may not hold for `score` [n]; None: it holds."""
    if off.low is None or off.low <= _OFF:
        return None
    points = np.unique(score)
    seen = np.concatenate(([0.0], np.cumsum(calibrator.rows) / calibrator.rows.sum()))
    there = seen[np.searchsorted(calibrator.scores, points, side="right")]
    here = np.searchsorted(np.sort(score), points, side="right") / len(score)
    noise = 1.36 * math.sqrt(1 / len(score) + 1 / float(calibrator.rows.sum()))
    distance = float(np.abs(here - there).max())
    if distance - noise <= _MOVED:
        return None
    return (
        f"the scores had to be calibrated on the reference (expected calibration error {off.value:.3f}) and are "
        f"distributed in another way on these rows (Kolmogorov-Smirnov distance {distance:.2f}): the calibration may "
        "not carry to them, so wait for labels"
    )


def sum_refusal(calibrators: Sequence[Calibrator], maps: Sequence[Sequence[Calibrator]], score: Floats) -> str | None:
    """Why the calibrations do not carry to rows with `score` [n, classes]; `maps` [classes][draws] of the reference."""
    sums = class_probabilities(calibrators, score).sum(axis=1)
    drawn = [
        float(class_probabilities(some, score).mean(axis=0).sum()) for some in islice(zip(*maps, strict=True), _MAPS)
    ]
    error = math.hypot(float(sums.std()) / math.sqrt(len(sums)), float(np.std(drawn)))
    total = float(sums.mean())
    if abs(total - 1) - 2 * error <= _TOLERANCE:
        return None
    return (
        f"calibrated on the reference, the probabilities of the classes add up to {total:.3f} on these rows, surely "
        f"not to 1: the calibration does not carry to them; {_TOLERANCE} is allowed"
    )


def expected_log_loss(
    calibrators: Sequence[Calibrator], maps: Sequence[Sequence[Calibrator]], score: Floats, *, spread: float, seed: int
) -> tuple[float, float, float]:
    """Low, value and high of the mean log loss that labels will show of rows with `score` [n, classes], with 95%.

    Drawn are other maps that the reference could have given, and the true classes (a normal sum of rows that are
    independent given their scores); `spread` widens where the reference showed that rows are not.
    """
    generator, cost = np.random.default_rng(seed), -np.log(np.clip(score, CLIP, 1.0))
    value = float((class_probabilities(calibrators, score) * cost).sum(axis=1).mean())
    drawn = []
    for some in zip(*maps, strict=True):
        chance = class_probabilities(some, score)
        row = (chance * cost).sum(axis=1)
        whole = chance / np.maximum(chance.sum(axis=1, keepdims=True), CLIP)
        variance = (whole * cost**2).sum(axis=1) - (whole * cost).sum(axis=1) ** 2
        noise = math.sqrt(max(float(variance.mean()), 0.0) / len(score))
        drawn.append(float(row.mean()) + float(generator.normal(0, noise)))
    low, middle, high = np.quantile(drawn, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return max(value - spread * float(middle - low), 0.0), value, value + spread * float(high - middle)

"""Which kind of change labels show: `prior`, `concept`, or a covariate change that is left over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from cumulant.monitoring.performance.recalibration import (
    CalibrationSums,
    Task,
    apply_calibration,
    bin_scores,
    class_counts,
    learn_calibration,
)
from cumulant.statistics import Word
from cumulant.statistics.rows import Floats

Kind = Literal["covariate", "prior", "concept"]
Question = Literal["refit", "calibration", "skill"]
#: the odds of the positive class change by this factor, or it is not called a move
_ODDS = 1.2
#: the distributions of scores within a class may differ by this (Kolmogorov-Smirnov), beyond noise
_ALIKE = 0.06
#: the distribution of all scores may differ by this and count as the same
_SAME_SCORES = 0.03


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Base rates of the reference and the recent windows, with its interval; of classifiers distances of the scores.

    Kolmogorov-Smirnov, less expected sampling noise: of `negatives`, `positives` and all. base_moved: significantly and
    by enough. for_prior: log-likelihood in nats of new class shares over a new truth of the scores.
    """

    before: float
    now: float
    low: float
    high: float
    base_moved: bool
    negatives: float | None = None
    positives: float | None = None
    scores: float | None = None
    for_prior: float | None = None

    @property
    def is_prior(self) -> bool:
        """Whether the base rate has moved and nothing else visible."""
        if self.negatives is None or self.positives is None or self.for_prior is None:
            return False
        return self.base_moved and max(self.negatives, self.positives) <= _ALIKE and self.for_prior > 0


def moved(task: Task, reference: CalibrationSums, recent: CalibrationSums, before: float) -> Moved | None:
    """The change between the reference and the recent windows; None for several classes or too few blocks."""
    from scipy.stats import t

    if recent.blocks < 3 or task == "multiclass":
        return None
    now = recent.rate / recent.blocks
    spread = math.sqrt(max(0.0, recent.rate_squares - recent.rate * now) / (recent.blocks - 1))
    radius = float(t.ppf(0.995, recent.blocks - 1)) * spread / math.sqrt(recent.blocks)
    ends = {"before": before, "now": now, "low": now - radius, "high": now + radius}
    sure = abs(now - before) > radius
    if task == "regression":
        return Moved(**ends, base_moved=sure)
    then, here = class_counts(reference), class_counts(recent)
    return Moved(
        **ends,
        base_moved=sure and abs(_logit(now) - _logit(before)) > math.log(_ODDS),
        negatives=_distance(then[0], here[0]),
        positives=_distance(then[1], here[1]),
        scores=_distance(then[0] + then[1], here[0] + here[1]),
        for_prior=_for_prior(then, here, reference, recent),
    )


def kind_of(
    words: Mapping[Question, Word], excess: Mapping[Question, float | None], change: Moved | None
) -> Kind | None:
    """The kind that fits; None where nothing relevant has changed, or it is not clear.

    A moved base rate with scores of either class as before is `prior`, also where recalibration helps. Else a refit or
    recalibration that gains is `concept`, as is skill lost on scores distributed as before. Skill lost on other scores,
    mostly not by calibration, is `covariate`. Labels alone do not distinguish a region that the model never fitted from
    `concept`.
    """
    if change is not None and change.is_prior:
        return "prior"
    if "worse" in (words.get("refit"), words.get("calibration")):
        return "concept"
    if words.get("skill") != "worse" or change is None or change.scores is None:
        return None
    if change.scores <= _SAME_SCORES:
        return "concept"
    lost, by_calibration = excess.get("skill"), excess.get("calibration")
    if lost is None or by_calibration is None or by_calibration >= lost / 2:
        return None
    return "covariate"


def _distance(before: Floats, now: Floats) -> float:
    total = max(float(now.sum()), 1.0)
    gap = float(np.abs(np.cumsum(before) / max(float(before.sum()), 1.0) - np.cumsum(now) / total).max())
    return max(0.0, gap - 1.36 / math.sqrt(total))


def _for_prior(
    then: tuple[Floats, Floats], here: tuple[Floats, Floats], reference: CalibrationSums, recent: CalibrationSums
) -> float:
    """Log-likelihood of the present scores and classes under new class shares, over a new truth of the scores."""
    negatives, positives = (counts + 0.5 for counts in then)
    rate = float(here[1].sum() / (here[0].sum() + here[1].sum()))
    shares = (negatives + positives) / float((negatives + positives).sum())
    prior = here[1] @ np.log(positives / positives.sum()) + here[0] @ np.log(negatives / negatives.sum())
    prior += float(here[1].sum()) * math.log(max(rate, 1e-12)) + float(here[0].sum()) * math.log(max(1 - rate, 1e-12))
    middles = bin_scores(reference, recent)
    calibrated = np.clip(apply_calibration("binary", learn_calibration("binary", recent), middles), 1e-9, 1 - 1e-9)
    other = (here[0] + here[1]) @ np.log(shares) + here[1] @ np.log(calibrated) + here[0] @ np.log(1 - calibrated)
    return float(prior - other) + math.log(max(float(here[0].sum() + here[1].sum()), 1.0)) / 2


def _logit(rate: float) -> float:
    inside = min(max(rate, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))

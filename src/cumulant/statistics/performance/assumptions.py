"""The reasons to refuse an estimate without labels: each function returns the reason, or None."""

from __future__ import annotations

import numpy as np

from cumulant.statistics.performance.calibration import Calibrator
from cumulant.statistics.records import Estimate
from cumulant.statistics.rows import Floats

#: rows with labels that a calibration is learned from, and of these of either class
LEAST_REFERENCE = 500
LEAST_OF_A_CLASS = 50
#: rows without labels that an estimate is about
LEAST_ROWS = 100
#: an expected calibration error surely above this cannot be distinguished from a change
WORST_CALIBRATION = 0.03
#: part of the rows that may score beyond every score of the reference
MOST_UNSEEN = 0.02


def reference_refusal(truth: Floats, score: Floats) -> str | None:
    """Why no calibration can be learned from `score` [n] with labels `truth` [n]."""
    reason = not_probabilities(score)
    if reason is not None:
        return reason
    if not np.isin(truth, (0.0, 1.0)).all():
        return "the labels are not all 0 or 1; this estimate is for two classes"
    positives = int(truth.sum())
    if len(truth) < LEAST_REFERENCE:
        return f"{len(truth)} rows with labels are too few to learn a calibration; {LEAST_REFERENCE} are needed"
    if min(positives, len(truth) - positives) < LEAST_OF_A_CLASS:
        return (
            f"{positives} of {len(truth)} rows with labels are positive; {LEAST_OF_A_CLASS} of either class are needed"
        )
    return None


def window_refusal(score: Floats, calibrator: Calibrator) -> str | None:
    """Why the performance on rows with `score` [n] cannot be estimated with this calibration."""
    if len(score) < LEAST_ROWS:
        return f"{len(score)} rows are too few for an estimate; {LEAST_ROWS} are needed"
    reason = not_probabilities(score)
    if reason is not None:
        return reason
    unseen = float(((score < calibrator.scores[0]) | (score > calibrator.scores[-1])).mean())
    if unseen > MOST_UNSEEN:
        return (
            f"{unseen:.1%} of the rows score beyond every score of the reference, "
            f"where nothing is known of the calibration; {MOST_UNSEEN:.0%} are allowed"
        )
    return None


def calibration_refusal(error: Estimate) -> str | None:
    """Why scores with this expected calibration error are not taken as probabilities."""
    if error.low is None or error.value is None:
        return "the calibration of the scores cannot be estimated from these rows"
    if error.low > WORST_CALIBRATION:
        return (
            f"the scores are not calibrated: their expected calibration error is {error.value:.3f}, "
            f"surely above {error.low:.3f}; {WORST_CALIBRATION} is allowed"
        )
    return None


def blind(kind: str | None) -> str | None:
    """Why an estimate is refused where labels have shown a change of this kind."""
    if kind == "concept":
        return (
            "labels show that the truth given the inputs has changed (concept); "
            "an estimate from scores alone cannot see that, and is refused until a model is trained on newer labels"
        )
    if kind == "prior":
        return (
            "labels show that the base rate has moved while the inputs of either class stayed alike (prior); "
            "scores calibrated before are off by that, and the estimate is refused until they are calibrated again"
        )
    return None


def not_probabilities(score: Floats) -> str | None:
    """Why `score` [n] cannot be probabilities."""
    if not np.isfinite(score).all():
        return f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are missing or not finite"
    if len(score) and (score.min() < 0 or score.max() > 1):
        return f"the scores are no probabilities: they lie between {score.min():g} and {score.max():g}"
    return None

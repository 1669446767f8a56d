"""Performance without labels, what calibration is worth, and the audit of an estimate when the truth comes.

Needs numpy and scipy only. `confidence` estimates a classifier's metrics from calibrated probabilities (CBPE),
`losses` a regression's from a model of its loss; `assumptions` says in words when neither may be trusted.
"""

from __future__ import annotations

from cumulant.statistics.performance.assumptions import blind, calibration_refusal, reference_refusal, window_refusal
from cumulant.statistics.performance.audit import Audit, audit
from cumulant.statistics.performance.calibration import (
    Calibrator,
    Parts,
    calibration_error,
    cross_fitted,
    parts,
    recalibrated,
)
from cumulant.statistics.performance.confidence import FIGURES, expected, expected_counts, expected_intervals
from cumulant.statistics.performance.losses import LossReference, expected_loss, mean_loss
from cumulant.statistics.performance.weighted import weighted_estimate

__all__ = [
    "FIGURES",
    "Audit",
    "Calibrator",
    "LossReference",
    "Parts",
    "audit",
    "blind",
    "calibration_error",
    "calibration_refusal",
    "cross_fitted",
    "expected",
    "expected_counts",
    "expected_intervals",
    "expected_loss",
    "mean_loss",
    "parts",
    "recalibrated",
    "reference_refusal",
    "weighted_estimate",
    "window_refusal",
]

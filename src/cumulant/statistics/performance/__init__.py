"""Performance estimates without labels, calibration, and the audit of an estimate once labels arrive.

Needs numpy and scipy only. `confidence` estimates a classifier's metrics from calibrated probabilities (CBPE),
`losses` a regression's from a model of its loss; `assumptions` gives the reason when neither may be trusted.
"""

from __future__ import annotations

from cumulant.statistics.performance.assumptions import blind, calibration_refusal, reference_refusal, window_refusal
from cumulant.statistics.performance.audit import Audit, audit
from cumulant.statistics.performance.calibration import (
    Calibrator,
    LossDecomposition,
    calibration_error,
    cross_fitted,
    decompose_loss,
    fit_recalibration,
)
from cumulant.statistics.performance.confidence import FIGURES, expected, expected_counts, expected_intervals
from cumulant.statistics.performance.losses import LossReference, expected_loss, mean_loss
from cumulant.statistics.performance.weighted import weighted_estimate

__all__ = [
    "FIGURES",
    "Audit",
    "Calibrator",
    "LossDecomposition",
    "LossReference",
    "audit",
    "blind",
    "calibration_error",
    "calibration_refusal",
    "cross_fitted",
    "decompose_loss",
    "expected",
    "expected_counts",
    "expected_intervals",
    "expected_loss",
    "fit_recalibration",
    "mean_loss",
    "reference_refusal",
    "weighted_estimate",
    "window_refusal",
]

"""Quality of a model in production: with labels, without them, and whether it does harm.

`measured` and `estimated` give metrics by window, `audited` holds the second to the first, and `harm` is told one
window after the other. Needs numpy and scipy; a regression's `learn_loss` needs LightGBM, `streams` river.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.monitoring.performance.baselines import Baseline, HarmTerms, baseline, harm_terms
    from cumulant.monitoring.performance.kinds import Kind, Moved
    from cumulant.monitoring.performance.labelled import Figure, MeasuredWindow, measured
    from cumulant.monitoring.performance.lossmodel import (
        EstimatedLoss,
        LossModel,
        estimated_loss,
        learn_loss,
        row_losses,
        tells_rows_apart,
    )
    from cumulant.monitoring.performance.refits import recent_refits
    from cumulant.monitoring.performance.rows import Predictions, Window, is_ripe, windows
    from cumulant.monitoring.performance.several import ClassEstimators, estimated_classes, learn_estimators
    from cumulant.monitoring.performance.streams import changes
    from cumulant.monitoring.performance.unlabelled import (
        EstimatedFigure,
        EstimatedWindow,
        Estimator,
        audited,
        estimated,
        learn_estimator,
    )
    from cumulant.monitoring.performance.watch import Finding, Harm, Watch, begin, harm

_HOMES = {
    "Baseline": "baselines",
    "ClassEstimators": "several",
    "EstimatedFigure": "unlabelled",
    "EstimatedLoss": "lossmodel",
    "EstimatedWindow": "unlabelled",
    "Estimator": "unlabelled",
    "Figure": "labelled",
    "Finding": "watch",
    "Harm": "watch",
    "HarmTerms": "baselines",
    "harm_terms": "baselines",
    "Kind": "kinds",
    "LossModel": "lossmodel",
    "MeasuredWindow": "labelled",
    "Moved": "kinds",
    "Predictions": "rows",
    "Watch": "watch",
    "Window": "rows",
    "audited": "unlabelled",
    "baseline": "baselines",
    "begin": "watch",
    "changes": "streams",
    "estimated": "unlabelled",
    "estimated_classes": "several",
    "estimated_loss": "lossmodel",
    "harm": "watch",
    "is_ripe": "rows",
    "learn_estimator": "unlabelled",
    "learn_estimators": "several",
    "learn_loss": "lossmodel",
    "measured": "labelled",
    "recent_refits": "refits",
    "row_losses": "lossmodel",
    "tells_rows_apart": "lossmodel",
    "windows": "rows",
}

__all__ = [
    "Baseline",
    "ClassEstimators",
    "EstimatedFigure",
    "EstimatedLoss",
    "EstimatedWindow",
    "Estimator",
    "Figure",
    "Finding",
    "Harm",
    "HarmTerms",
    "Kind",
    "LossModel",
    "MeasuredWindow",
    "Moved",
    "Predictions",
    "Watch",
    "Window",
    "audited",
    "baseline",
    "begin",
    "changes",
    "estimated",
    "estimated_classes",
    "estimated_loss",
    "harm",
    "harm_terms",
    "is_ripe",
    "learn_estimator",
    "learn_estimators",
    "learn_loss",
    "measured",
    "recent_refits",
    "row_losses",
    "tells_rows_apart",
    "windows",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")

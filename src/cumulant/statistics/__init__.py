"""Numbers that decide, with their uncertainty: metrics, clustered bootstrap intervals, verdict words, distances.

`sequential` is a package of its own: tests that stay valid however often one looks.

Needs numpy and scipy only, and nothing of Cumulant: these functions can be read and checked alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.statistics.bootstrap import Estimate, difference, draw, estimate, interval
    from cumulant.statistics.distances import jensen_shannon, population_stability, total_variation, wasserstein
    from cumulant.statistics.metrics import METRICS, Metric, metric, metrics_for
    from cumulant.statistics.ranking import average_precision, roc_auc
    from cumulant.statistics.rows import Rows, cluster_codes
    from cumulant.statistics.words import Word, verdict

_HOMES = {
    "Estimate": "bootstrap",
    "difference": "bootstrap",
    "draw": "bootstrap",
    "estimate": "bootstrap",
    "interval": "bootstrap",
    "jensen_shannon": "distances",
    "population_stability": "distances",
    "total_variation": "distances",
    "wasserstein": "distances",
    "METRICS": "metrics",
    "Metric": "metrics",
    "metric": "metrics",
    "metrics_for": "metrics",
    "average_precision": "ranking",
    "roc_auc": "ranking",
    "Rows": "rows",
    "cluster_codes": "rows",
    "Word": "words",
    "verdict": "words",
}

__all__ = [
    "METRICS",
    "Estimate",
    "Metric",
    "Rows",
    "Word",
    "average_precision",
    "cluster_codes",
    "difference",
    "draw",
    "estimate",
    "interval",
    "jensen_shannon",
    "metric",
    "metrics_for",
    "population_stability",
    "roc_auc",
    "total_variation",
    "verdict",
    "wasserstein",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")

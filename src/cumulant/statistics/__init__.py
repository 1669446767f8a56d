"""Statistics with their uncertainty; they need numpy and scipy only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.statistics.agreement import Agreement, cohen_kappa, contingency_table
    from cumulant.statistics.bootstrap import difference, draw, estimate, interval
    from cumulant.statistics.chance import above_chance, exchanged_values
    from cumulant.statistics.conformal import (
        aps_scores,
        conformal_quantile,
        label_p_values,
        lac_scores,
        p_values,
        prediction_interval,
        prediction_sets,
    )
    from cumulant.statistics.distances import jensen_shannon, population_stability, total_variation, wasserstein
    from cumulant.statistics.metric_names import quantile_of
    from cumulant.statistics.metrics import METRICS, Metric, metric, metrics_for
    from cumulant.statistics.novelty import Known, Scale
    from cumulant.statistics.ranking import average_precision, roc_auc
    from cumulant.statistics.records import Estimate
    from cumulant.statistics.rows import Rows, cluster_codes
    from cumulant.statistics.sampling import Weighted, hajek
    from cumulant.statistics.words import Word, verdict

_HOMES = {
    name: module
    for module, names in {
        "records": ("Estimate",),
        "bootstrap": ("difference", "draw", "estimate", "interval"),
        "chance": ("above_chance", "exchanged_values"),
        "distances": ("jensen_shannon", "population_stability", "total_variation", "wasserstein"),
        "metrics": ("METRICS", "Metric", "metric", "metrics_for"),
        "metric_names": ("quantile_of",),
        "ranking": ("average_precision", "roc_auc"),
        "rows": ("Rows", "cluster_codes"),
        "words": ("Word", "verdict"),
        "agreement": ("Agreement", "cohen_kappa", "contingency_table"),
        "conformal": (
            "aps_scores",
            "conformal_quantile",
            "label_p_values",
            "lac_scores",
            "p_values",
            "prediction_interval",
            "prediction_sets",
        ),
        "novelty": ("Known", "Scale"),
        "sampling": ("Weighted", "hajek"),
    }.items()
    for name in names
}

__all__ = [
    "METRICS",
    "Agreement",
    "Estimate",
    "Known",
    "Metric",
    "Rows",
    "Scale",
    "Weighted",
    "Word",
    "above_chance",
    "aps_scores",
    "average_precision",
    "cluster_codes",
    "cohen_kappa",
    "conformal_quantile",
    "contingency_table",
    "difference",
    "draw",
    "estimate",
    "exchanged_values",
    "hajek",
    "interval",
    "jensen_shannon",
    "label_p_values",
    "lac_scores",
    "metric",
    "metrics_for",
    "p_values",
    "population_stability",
    "prediction_interval",
    "prediction_sets",
    "quantile_of",
    "roc_auc",
    "total_variation",
    "verdict",
    "wasserstein",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")

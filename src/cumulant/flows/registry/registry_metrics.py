"""Metric names in the registry: in groups, as MLflow shows them, and plain."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.statistics import Estimate

#: group in the registry -> what stands before the figure's name in ours
_GROUPS = {"interval": "", "naive": "naive_", "folds": "cv_"}


def registry_metrics(
    figures: Mapping[str, Estimate], *, naive: Mapping[str, float], folds: Mapping[str, float]
) -> dict[str, float]:
    """Figures with the ends of their intervals, the naive baseline's, and the means over the folds of the search."""
    metrics = {
        **{name: estimate.value for name, estimate in figures.items()},
        **{
            f"interval/{name}_{end}": getattr(estimate, end)
            for name, estimate in figures.items()
            for end in ("low", "high")
        },
        **{f"naive/{name}": value for name, value in naive.items()},
        **{f"folds/{name}": value for name, value in folds.items()},
    }
    return {name: value for name, value in metrics.items() if value is not None}


def plain_metrics(registered: Mapping[str, float]) -> dict[str, float]:
    """A run's metrics without their groups: `NAME`, `NAME_low`, `NAME_high`, `naive_NAME`, `cv_NAME`."""
    return {_plain(name): value for name, value in registered.items()}


def _plain(name: str) -> str:
    group, _, rest = name.partition("/")
    return f"{_GROUPS[group]}{rest}" if rest and group in _GROUPS else name

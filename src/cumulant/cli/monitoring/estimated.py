"""How metrics that are estimated without labels are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.monitoring.performance.unlabelled import EstimatedFigure

#: metrics that a line shows, in this order; documents have all
_SHOWN: Mapping[str, str] = {"accuracy": "accuracy", "log_loss": "log loss", "brier": "Brier score"}


def figures(estimated: Mapping[str, EstimatedFigure], reference: Mapping[str, float] | None = None) -> str:
    """Each metric with its interval, and what the reference showed where `reference` knows it."""
    parts, known = [], reference or {}
    for name, title in _SHOWN.items():
        figure = estimated.get(name)
        if figure is not None:
            before = f" ({known[name]:.3f} on the reference)" if name in known else ""
            parts.append(f"{title} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]{before}")
    return ", ".join(parts)

"""The names of the metrics and the tasks that each measures; usable without an engine."""

from __future__ import annotations

import math
import re
from typing import Literal

Task = Literal["binary", "multiclass", "regression"]

_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_BINARY: tuple[Task, ...] = ("binary",)
_MANY: tuple[Task, ...] = ("multiclass",)
_NUMBER: tuple[Task, ...] = ("regression",)
_PINBALL = re.compile(r"pinball_(\d{1,2})")

TASKS: dict[str, tuple[Task, ...]] = {
    "average_precision": _BINARY,
    "roc_auc": _BINARY,
    "log_loss": _CLASSES,
    "brier": _CLASSES,
    "calibration_error": _CLASSES,
    "accuracy": _CLASSES,
    "precision": _BINARY,
    "recall": _BINARY,
    "f1": _BINARY,
    "cost": _BINARY,
    "macro_f1": _MANY,
    "mae": _NUMBER,
    "rmse": _NUMBER,
    "r2": _NUMBER,
    "pinball": _NUMBER,
}
#: those of which more is better; of the others less
HIGHER = frozenset({"average_precision", "roc_auc", "accuracy", "precision", "recall", "f1", "macro_f1", "r2"})
#: those between 0 and 1; `r2` is at most 1, `cost` may be anything, and the others are at least 0
_SHARES = HIGHER - {"r2"} | {"calibration_error"}
#: those that a search can improve: they need no threshold
SEARCHABLE = ("average_precision", "roc_auc", "log_loss", "brier", "macro_f1", "mae", "rmse", "r2", "pinball")


def tasks_of(name: str) -> tuple[Task, ...]:
    """The tasks that a metric measures; none where there is no metric of that name."""
    return TASKS.get(name, _NUMBER if quantile_of(name) is not None else ())


def bounds_of(name: str) -> tuple[float, float]:
    """The least and the largest value that a metric can have."""
    least = -math.inf if name in ("r2", "cost") or not tasks_of(name) else 0.0
    return least, 1.0 if name in _SHARES or name == "r2" else math.inf


def quantile_of(name: str) -> float | None:
    """The quantile that the metric measures: 0.90 of `pinball_90`, 0.5 of `pinball` and `mae`; None for others."""
    if name in ("pinball", "mae"):
        return 0.5
    match = _PINBALL.fullmatch(name)
    return int(match[1]) / 100 if match is not None and 0 < int(match[1]) < 100 else None

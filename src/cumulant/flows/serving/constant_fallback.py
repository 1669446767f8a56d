"""The check of the fallback's constant answer against the answers of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cumulant.core.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from cumulant.core.servable import Task

Value = str | int | float | bool
#: classes that the model answers with false and true
_TRUTH = ("false", "true")
#: classes in a hint
_SHOWN = 10


def check_constant(constant: Mapping[str, Value] | None, task: Task, classes: Sequence[str]) -> None:
    """Raises DefinitionError where callers would get another kind of answer than the model's."""
    if constant is None:
        return
    known = ("prediction",) if task == "regression" else ("prediction", "probability")
    unknown = next((name for name in constant if name not in known), None)
    if unknown is not None:
        raise _refused(f'"{unknown}" is no output of the model', did_you_mean(unknown, known) or _hint(task, classes))
    if "prediction" not in constant:
        raise _refused("the prediction is missing", _hint(task, classes))
    if not _fits(constant["prediction"], task, classes):
        raise _refused(f"{_text(constant['prediction'])} is no prediction of the model", _hint(task, classes))
    probability = constant.get("probability", 0.0)
    if isinstance(probability, (bool, str)) or not 0 <= probability <= 1:
        raise _refused(f"{_text(probability)} is no probability", "write a number from 0 to 1")


def _text(value: Value) -> str:
    from cumulant.training.class_names import label

    return label(value)


def _fits(value: Value, task: Task, classes: Sequence[str]) -> bool:
    if task == "regression":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if task == "binary" and tuple(classes) == _TRUTH:
        return isinstance(value, bool)
    return _text(value) in classes


def _hint(task: Task, classes: Sequence[str]) -> str:
    if task == "regression":
        return "write for example {prediction: 0.0}"
    return f"write for example {{prediction: {classes[0]}}}; predictions of this model: {', '.join(classes[:_SHOWN])}"


def _refused(why: str, hint: str) -> DefinitionError:
    path = "serving.fallback.constant"
    return DefinitionError(f"{path}: {why}", subject=path, hint=hint)

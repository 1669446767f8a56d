"""Scores of answers, and their losses when the label came."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from cumulant.core.prediction import read_object

Loss = Literal["brier", "squared_error", "log_loss", "zero_one"]
_TINY = 1e-6


class _Probability(msgspec.Struct):
    probability: float


class _Prediction(msgspec.Struct):
    """An answer whose number is its prediction: it has no probability."""

    prediction: float
    probability: msgspec.UnsetType = msgspec.UNSET


_PROBABILITY = msgspec.json.Decoder(_Probability).decode
_PREDICTION = msgspec.json.Decoder(_Prediction).decode


def score(outputs: Mapping[str, object]) -> float | None:
    """The probability of a classifier's answer (of a binary one, of the positive class), or the predicted number.

    Of an answer in tensors: its only number. None where there is no such one.
    """
    for name in ("probability", "prediction", "score"):
        if (figure := _number(outputs.get(name))) is not None:
            return figure
    numbers = [number for value in outputs.values() if (number := _number(value)) is not None]
    return numbers[0] if len(numbers) == 1 and len(outputs) == 1 else None


def scores(texts: Sequence[str]) -> list[float | None]:
    """As `score` of `read_object`, of many rows."""
    for read in (_probabilities, _predictions):  # as almost all answers are
        with contextlib.suppress(msgspec.DecodeError):
            numbers = read(texts)
            if all(map(math.isfinite, numbers)):
                return list(numbers)
    return [score(read_object(text)) for text in texts]


def _probabilities(texts: Iterable[str]) -> list[float]:
    return [_PROBABILITY(text).probability for text in texts]


def _predictions(texts: Iterable[str]) -> list[float]:
    return [_PREDICTION(text).prediction for text in texts]


def class_probabilities(outputs: Mapping[str, object], classes: Sequence[str | int | bool]) -> list[float] | None:
    """The probability of each of several classes, in their order; NaN for a missing one. None where the answer has
    none.
    """
    given = outputs.get("probabilities")
    if not isinstance(given, dict):
        return None
    numbers = (_number(given.get(str(name).lower() if isinstance(name, bool) else str(name))) for name in classes)
    return [math.nan if name is None else name for name in numbers]


def decision(outputs: Mapping[str, object]) -> object:
    """What was answered, as it is compared between arms."""
    return outputs.get("prediction", outputs)


def loss(outputs: Mapping[str, object], label: object, value: float | None, kind: Loss | None = None) -> float | None:
    """How wrong the answer was; None where that is unknown. `value` is the label's number, as it was stored.

    Without `kind`: the Brier score of a probability, the squared error of a number, 0 or 1 for a class of several.
    """
    probabilities = outputs.get("probabilities")
    if isinstance(probabilities, dict):
        return _of_classes(outputs, probabilities, label, kind)
    predicted = score(outputs)
    if kind == "zero_one":
        return float(outputs.get("prediction") != label) if "prediction" in outputs else None
    if predicted is None or value is None:
        return None
    if kind == "log_loss":
        p = min(max(predicted, _TINY), 1 - _TINY)
        return -(value * math.log(p) + (1 - value) * math.log(1 - p))
    return (predicted - value) ** 2


def _of_classes(
    outputs: Mapping[str, object], probabilities: Mapping[str, object], label: object, kind: Loss | None
) -> float | None:
    given = {name: p for name, value in probabilities.items() if (p := _number(value)) is not None}
    if kind == "log_loss":
        return -math.log(max(given.get(str(label), 0.0), _TINY))
    if kind == "brier":
        return sum((p - (name == str(label))) ** 2 for name, p in given.items())
    return float(outputs.get("prediction") != label)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)

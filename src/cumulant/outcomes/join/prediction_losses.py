"""Scores of answers, and their losses when the label came."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cumulant.core.prediction import read_object


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


def loss(outputs: Mapping[str, object], label: object, value: float | None) -> float | None:
    """How wrong the answer was; None where that is unknown. `value` is the label's number, as it was stored.

    The Brier score of a probability, the squared error of a number, 0 or 1 for a class of several.
    """
    if isinstance(outputs.get("probabilities"), dict):
        return float(outputs.get("prediction") != label)
    predicted = score(outputs)
    return None if predicted is None or value is None else (predicted - value) ** 2


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)

"""Decisions that a form must keep: largest class or side of a threshold; and their confidence limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError

Array = NDArray[Any]

#: of two classes, where no threshold is declared: the decisions at each of these must be kept
COMMON = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
#: how often a form that changes more than the loss may be taken all the same
LEVEL = 0.05
#: probabilities may miss 0, 1 and their sum of 1 by this
_ROUNDING = 1e-3


def decisions_kept(expected: Array, answers: Array, threshold: float | None) -> list[Array] | None:
    """Whether each row keeps each compared decision; None for numbers that decide nothing.

    Labels and other outputs that are no floats are compared as they are, [n, 3 or more] numbers by their largest class.
    Of two classes the probability of the second is compared with `threshold`, without one with each of `COMMON`.
    Numbers [n] or [n, 1] decide only where a threshold is declared.
    """
    if expected.dtype.kind != "f":
        return [expected == answers]
    if not decides(expected, threshold):
        return None
    if expected.ndim == 2 and expected.shape[1] > 2:
        return [_classes(expected) == _classes(answers)]
    ours, theirs = _scores(expected, expected), _scores(answers, expected)
    limits = COMMON if threshold is None else (threshold,)
    return [(ours >= limit) == (theirs >= limit) for limit in limits]


def decides(answer: Array, threshold: float | None) -> bool:
    """Whether such answers make a decision of each row."""
    if answer.dtype.kind != "f" or (answer.ndim == 2 and answer.shape[1] >= 2):
        return True
    return threshold is not None and answer.ndim in (1, 2)


def check_threshold(answers: Sequence[Array], threshold: float | None) -> None:
    """Raise DataError where a threshold is declared and no output is of two classes, or one number a row."""
    if threshold is None:
        return
    if not 0 < threshold < 1:
        raise DataError(f"a threshold of {threshold:g} is no probability between 0 and 1")
    if not any(
        answer.dtype.kind == "f" and (answer.ndim == 1 or (answer.ndim == 2 and answer.shape[1] <= 2))
        for answer in answers
    ):
        raise DataError(
            "a threshold decides between two classes, and no output has two",
            hint="leave the threshold out: of several classes the largest decides",
        )


def describe_lost_side(expected: Array, answers: Array, threshold: float | None, accuracy_loss: float) -> str:
    """Why a form is refused: surely (exact 95% interval) too many decisions change on one side of a threshold."""
    if threshold is None or expected.dtype.kind != "f" or not (expected.ndim == 1 or expected.shape[1] <= 2):
        return ""
    yes, now = (_scores(scores, expected) >= threshold for scores in (expected, answers))
    for side, label in ((yes, "yes"), (~yes, "no")):
        rows, changed = int(side.sum()), int((side & (yes != now)).sum())
        if changed and 1 - exact_limit(rows - changed, rows, upper=True) > accuracy_loss:
            return f"changes {changed:,} of {rows:,} answers of {label} at the threshold of {threshold:g}"
    return ""


def exact_limit(successes: int, rows: int, *, upper: bool = False) -> float:
    """The one-sided exact 95% limit of a share (Clopper and Pearson, 1934): the lower one, or the `upper`."""
    from scipy.special import betaincinv

    if upper:
        return 1.0 if successes == rows else float(betaincinv(successes + 1, rows - successes, 1 - LEVEL))
    return 0.0 if successes == 0 else float(betaincinv(successes, rows - successes + 1, LEVEL))


def rows_to_show(accuracy_loss: float) -> int:
    """The fewest rows, all agreeing, on which `exact_limit` reaches 1 - `accuracy_loss`; a loss above 0."""
    return math.ceil(math.log(LEVEL) / math.log1p(-accuracy_loss))


def _classes(scores: Array) -> Array:
    largest: Array = np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=1)
    return largest


def _scores(answer: Array, original: Array) -> Array:
    """The probability of the second class [n]; of two numbers that are none, such as logits, by the softmax."""
    if answer.ndim == 1 or answer.shape[1] == 1:
        single: Array = answer.reshape(-1)
        return single
    if _probabilities(original):
        second: Array = answer[:, 1]
        return second
    difference = np.clip(answer[:, 1].astype(np.float64) - answer[:, 0], -500, 500)
    probabilities: Array = 1 / (1 + np.exp(-difference))
    return probabilities


def _probabilities(answer: Array) -> bool:
    finite = answer[np.isfinite(answer).all(axis=1)]
    inside = (finite > -_ROUNDING).all() and (finite < 1 + _ROUNDING).all()
    return bool(inside and (np.abs(finite.sum(axis=1) - 1) < _ROUNDING).all())

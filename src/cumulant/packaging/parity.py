"""Parity of a packaged model with the trained model, or with the original that was converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError, ParityError
from cumulant.core.servable import Parity
from cumulant.servable.description import Floats, TrainedModel
from cumulant.servable.engine import Array
from cumulant.servable.scorer import Scorer

if TYPE_CHECKING:
    import polars as pl

#: enough to meet every branch that matters, little enough to cost a fraction of a second
ROWS = 4000
_NUMBERS = "fiu"


def measure_parity(scorer: Scorer, model: TrainedModel, sample: pl.DataFrame, *, tolerance: float) -> Parity:
    """Compare the packaged answers with the trained model's on rows of `sample`, from the features on.

    Of a long sample, the rows nearest to the threshold on both sides are taken, and others evenly.
    Differences of values above 1 are relative to the value.

    Raises:
        DataError: the sample has no rows.
        ParityError: a difference above `tolerance`.
    """
    if len(sample) == 0:
        raise DataError("the sample for the parity check has no rows", hint="pass some rows of the training set")
    expected = model.predict(model.encode(sample))
    rows = choose_rows(expected, _cut(scorer)) if scorer.servable.task == "binary" else spread_evenly(len(sample), ROWS)
    expected = expected[rows]
    answers = scorer.score({name: sample[name].gather(rows).to_list() for name in scorer.features})
    parity = Parity(
        rows=len(rows),
        max_difference=_difference(expected, answers),
        flips=_flips(scorer, expected, answers),
        tolerance=tolerance,
    )
    hint = "check that the trainer predicts from the float32 matrix of its inputs and from nothing else"
    return _checked(parity, "the trained model's", scorer.servable.name, hint)


def _cut(scorer: Scorer) -> float:
    return 0.5 if scorer.servable.threshold is None else scorer.servable.threshold


def choose_rows(scores: NDArray[Any], cut: float) -> NDArray[np.intp]:
    """A quarter of `ROWS` nearest below the cut, a quarter nearest above, the rest evenly."""
    if len(scores) <= ROWS:
        return np.arange(len(scores))
    above, below = np.flatnonzero(scores >= cut), np.flatnonzero(~(scores >= cut))
    near = [side[np.argsort(np.abs(scores[side] - cut), kind="stable")[: ROWS // 4]] for side in (below, above)]
    return np.unique(np.concatenate([*near, spread_evenly(len(scores), ROWS // 2)]))


def spread_evenly(count: int, wanted: int) -> NDArray[np.intp]:
    """Up to `wanted` of `count` rows, as far apart as they can be."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.intp))


def _difference(expected: Floats, answers: Floats) -> float:
    if expected.shape != answers.shape:
        raise ParityError(
            f"the packaged model gives answers of shape {answers.shape}, the trained one {expected.shape}"
        )
    return float((np.abs(answers - expected) / np.maximum(1, np.abs(expected))).max())


def _flips(scorer: Scorer, expected: Floats, answers: Floats) -> int:
    match scorer.servable.task:
        case "binary":
            return int(((expected >= _cut(scorer)) != (answers >= _cut(scorer))).sum())
        case "multiclass":
            return int((expected.argmax(axis=1) != answers.argmax(axis=1)).sum())
        case "regression":
            return 0


def rows_to_compare(expected: Mapping[str, Array]) -> NDArray[np.intp]:
    """Rows to compare: of many, those nearest to the decision on both sides, and others evenly."""
    count = len(next(iter(expected.values())))
    score = expected.get("probability")
    return choose_rows(score, 0.5) if score is not None and score.ndim == 1 else spread_evenly(count, ROWS)


def compare_answers(
    expected: Mapping[str, Array], answers: Mapping[str, Array], *, tolerance: float, name: str
) -> Parity:
    """Largest difference (of values above 1, relative to the value) and number of changed decisions.

    Raises:
        ParityError: a difference above `tolerance`, an answer of another shape, or a missing answer.
    """
    gap, flips, rows = 0.0, np.zeros(0, bool), 0
    for output, want in expected.items():
        got = answers[output]
        if want.shape != got.shape:
            raise ParityError(f"{output} has the shape {got.shape}, the original's {want.shape}", subject=name)
        rows = len(want)
        flips = _changed_decisions(output, want, got) | (flips if len(flips) else np.zeros(rows, bool))
        if want.dtype.kind in _NUMBERS and output != "label":
            gap = max(gap, _gap(want, got))
    parity = Parity(rows=rows, max_difference=gap, flips=int(flips.sum()), tolerance=tolerance)
    return _checked(parity, "the original's", name, "check what the conversion changes, or allow it with --tolerance")


def _checked(parity: Parity, whose: str, name: str, hint: str) -> Parity:
    # Written so that a NaN, which compares false with everything, fails as well.
    if not parity.max_difference <= parity.tolerance:
        raise ParityError(
            f"the packaged model's answers differ from {whose} by up to {parity.max_difference:.3g} "
            f"({parity.flips} of {parity.rows} decisions change); the tolerance is {parity.tolerance:g}",
            subject=name,
            hint=hint,
        )
    return parity


def _gap(want: Array, got: Array) -> float:
    expected, other = want.astype(np.float64), got.astype(np.float64)
    same = (expected == other) | (np.isnan(expected) & np.isnan(other))  # infinities too
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(other - expected) / np.maximum(1, np.abs(expected)))
    # A NaN on one side only is no agreement at all.
    return float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))


def _changed_decisions(output: str, want: Array, got: Array) -> NDArray[np.bool_]:
    """Rows whose decision changes: a label, the side of one half, or the likeliest class."""
    if want.dtype.kind != "f":
        changed = want != got
        return np.asarray(changed.reshape(len(want), -1).any(axis=1))
    if output == "probability" and want.ndim == 1:
        return np.asarray((want > 0.5) != (got > 0.5))
    if want.ndim == 2 and want.shape[1] > 1 and output != "prediction":
        return np.asarray(want.argmax(axis=1) != got.argmax(axis=1))
    return np.zeros(len(want), bool)

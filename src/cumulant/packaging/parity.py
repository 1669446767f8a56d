"""Parity check of a packaged model with the trained one, before a servable is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError, ParityError
from cumulant.core.servable import Parity
from cumulant.servable.description import Floats, TrainedModel
from cumulant.servable.scorer import Scorer

if TYPE_CHECKING:
    import polars as pl

#: enough to meet every branch that matters, little enough to cost a fraction of a second
ROWS = 4000


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
    # Written so that a NaN, which compares false with everything, fails as well.
    if not parity.max_difference <= tolerance:
        raise ParityError(
            f"the packaged model's answers differ from the trained model's by up to {parity.max_difference:.3g} "
            f"({parity.flips} of {parity.rows} decisions change); the tolerance is {tolerance:g}",
            subject=scorer.servable.name,
            hint="check that the trainer predicts from the float32 matrix of its inputs and from nothing else",
        )
    return parity


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

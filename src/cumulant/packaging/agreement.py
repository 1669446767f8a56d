"""Comparison of a packaged graph's answers with the original model's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import ParityError
from cumulant.core.servable import Parity
from cumulant.packaging.parity import ROWS, choose_rows, spread_evenly
from cumulant.servable.engine import Array

_NUMBERS = "fiu"


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
        flips = _flips(output, want, got) | (flips if len(flips) else np.zeros(rows, bool))
        if want.dtype.kind in _NUMBERS and output != "label":
            gap = max(gap, _gap(want, got))
    parity = Parity(rows=rows, max_difference=gap, flips=int(flips.sum()), tolerance=tolerance)
    if not gap <= tolerance:
        raise ParityError(
            f"the packaged model's answers differ from the original's by up to {gap:.3g} "
            f"({parity.flips} of {rows} decisions change); the tolerance is {tolerance:g}",
            subject=name,
            hint="look at what the conversion changes, or allow it with --tolerance",
        )
    return parity


def _gap(want: Array, got: Array) -> float:
    expected, other = want.astype(np.float64), got.astype(np.float64)
    same = (expected == other) | (np.isnan(expected) & np.isnan(other))  # infinities too
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(other - expected) / np.maximum(1, np.abs(expected)))
    # A NaN on one side only is no agreement at all.
    return float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0))


def _flips(output: str, want: Array, got: Array) -> NDArray[np.bool_]:
    """Rows whose decision changes: a label, the side of one half, or the likeliest class."""
    if want.dtype.kind != "f":
        changed = want != got
        return np.asarray(changed.reshape(len(want), -1).any(axis=1))
    if output == "probability" and want.ndim == 1:
        return np.asarray((want > 0.5) != (got > 0.5))
    if want.ndim == 2 and want.shape[1] > 1 and output != "prediction":
        return np.asarray(want.argmax(axis=1) != got.argmax(axis=1))
    return np.zeros(len(want), bool)

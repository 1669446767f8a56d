"""Required columns of a model, by a test with missing values in each column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cumulant.core.errors import ParityError, RequestError
from cumulant.packaging.convert.foreign_model import ForeignModel
from cumulant.packaging.parity import compare_answers
from cumulant.packaging.samples import ModelSample
from cumulant.servable.engine import Array, Engine

#: rows that each column is missing in
_ROWS = 8
#: rows that are searched for them
_TRIED = 64
#: how libraries refuse a missing value; none of them has an error of its own for it
_REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError)


def needed_columns(
    foreign: ForeignModel, engine: Engine, rows: ModelSample, columns: Sequence[str], *, tolerance: float | None
) -> tuple[str, ...]:
    """The columns of the matrix without which the original or the graph has no answer, or the two have different ones.

    All of them where a row without any value has none. `tolerance`: of the comparison with the original; None where
    the graph is meant to answer otherwise, so that only the lack of an answer counts.
    """
    if not columns:
        return ()
    (spec,) = engine.inputs
    if spec.datatype not in ("FP16", "FP32", "FP64"):
        return tuple(columns)
    matrix = _answered_rows(engine, _whole(rows, engine))
    if not len(matrix):
        return ()
    probe = _Probe(foreign, engine, tolerance)
    probe.learn(matrix)
    needed = tuple(name for place, name in enumerate(columns) if not probe.accepts(_without_column(matrix, place)))
    return needed if needed or probe.accepts(np.full_like(matrix, np.nan)) else tuple(columns)


def _whole(rows: ModelSample, engine: Engine) -> Array:
    (spec,) = engine.inputs
    return np.nan_to_num(rows.feeds(engine.inputs)[spec.name], posinf=0.0, neginf=0.0)


def _answered_rows(engine: Engine, matrix: Array) -> Array:
    """Some rows to which the graph has an answer; none where it takes a fixed number of rows and misses one."""
    (spec,) = engine.inputs
    if spec.shape[0] != -1:
        return matrix if _numbers(engine, matrix) is not None else matrix[:0]
    answered = [row for row in matrix[:_TRIED, None] if _numbers(engine, row) is not None]
    return np.concatenate(answered[:_ROWS]) if answered else matrix[:0]


def _without_column(matrix: Array, place: int) -> Array:
    changed = matrix.copy()
    changed[:, place] = np.nan
    return changed


def _numbers(engine: Engine, matrix: Array) -> dict[str, Array] | None:
    """The graph's outputs; None where it refuses the rows, or answers that something is not a number."""
    try:
        ran = engine.run({engine.inputs[0].name: matrix})
    except RequestError:
        return None
    numbers = {spec.name: np.asarray(array) for spec, array in zip(engine.outputs, ran, strict=True)}
    return None if any(array.dtype.kind == "f" and np.isnan(array).any() for array in numbers.values()) else numbers


class _Probe:
    """Tests whether the original and its graph accept missing values."""

    def __init__(self, foreign: ForeignModel, engine: Engine, tolerance: float | None) -> None:
        self._foreign, self._engine, self._tolerance = foreign, engine, tolerance
        self._includes_original = True

    def learn(self, matrix: Array) -> None:
        """Include the original only where it accepts these rows: it may refuse synthetic ones for other reasons."""
        self._includes_original = self.accepts(matrix)

    def accepts(self, matrix: Array) -> bool:
        """Whether both answer these rows, with numbers, and alike."""
        answers = _numbers(self._engine, matrix)
        return answers is not None and (not self._includes_original or self._agree(matrix, answers))

    def _agree(self, matrix: Array, answers: dict[str, Array]) -> bool:
        try:
            expected = self._foreign.predict({self._engine.inputs[0].name: matrix})
            if self._tolerance is not None:
                compare_answers(expected, answers, tolerance=self._tolerance, name="")
        except (*_REFUSALS, ParityError):
            return False
        return True

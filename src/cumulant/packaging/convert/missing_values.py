"""Which columns must a row carry? A missing value is tried in each: not every model bears it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cumulant.core.errors import ParityError, RequestError
from cumulant.packaging.agreement import compare
from cumulant.packaging.convert.foreign_model import Foreign
from cumulant.packaging.samples import Sample
from cumulant.servable.engine import Array, Engine

#: rows that each column is missing in
_ROWS = 8
#: rows among which those are looked for
_TRIED = 64
#: how libraries refuse a missing value; none of them has an error of its own for it
_REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError)


def needed_columns(
    foreign: Foreign, engine: Engine, rows: Sample, columns: Sequence[str], *, tolerance: float | None
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
    matrix = _answered(engine, _whole(rows, engine))
    if not len(matrix):
        return ()
    probe = _Probe(foreign, engine, tolerance)
    probe.learn(matrix)
    found = tuple(name for place, name in enumerate(columns) if not probe.bears(_without(matrix, place)))
    return found if found or probe.bears(np.full_like(matrix, np.nan)) else tuple(columns)


def _whole(rows: Sample, engine: Engine) -> Array:
    """Rows without missing values."""
    (spec,) = engine.inputs
    return np.nan_to_num(rows.feeds(engine.inputs)[spec.name], posinf=0.0, neginf=0.0)


def _answered(engine: Engine, matrix: Array) -> Array:
    """Some rows to which the graph has an answer; none where it takes a fixed number of rows and misses one."""
    (spec,) = engine.inputs
    if spec.shape[0] != -1:
        return matrix if _numbers(engine, matrix) is not None else matrix[:0]
    found = [row for row in matrix[:_TRIED, None] if _numbers(engine, row) is not None]
    return np.concatenate(found[:_ROWS]) if found else matrix[:0]


def _without(matrix: Array, place: int) -> Array:
    found = matrix.copy()
    found[:, place] = np.nan
    return found


def _numbers(engine: Engine, matrix: Array) -> dict[str, Array] | None:
    """The graph's outputs; None where it refuses the rows, or answers that something is not a number."""
    try:
        ran = engine.run({engine.inputs[0].name: matrix})
    except RequestError:
        return None
    found = {spec.name: np.asarray(one) for spec, one in zip(engine.outputs, ran, strict=True)}
    return None if any(one.dtype.kind == "f" and np.isnan(one).any() for one in found.values()) else found


class _Probe:
    """Do the original and its graph bear missing values?"""

    def __init__(self, foreign: Foreign, engine: Engine, tolerance: float | None) -> None:
        self._foreign, self._engine, self._tolerance = foreign, engine, tolerance
        self._asks = True

    def learn(self, matrix: Array) -> None:
        """Ask the original only where it takes such rows at all: made-up ones it may refuse for other reasons."""
        self._asks = self.bears(matrix)

    def bears(self, matrix: Array) -> bool:
        """Whether both answer these rows, with numbers, and alike."""
        found = _numbers(self._engine, matrix)
        return found is not None and (not self._asks or self._agree(matrix, found))

    def _agree(self, matrix: Array, found: dict[str, Array]) -> bool:
        try:
            expected = self._foreign.predict({self._engine.inputs[0].name: matrix})
            if self._tolerance is not None:
                compare(expected, found, tolerance=self._tolerance, name="")
        except (*_REFUSALS, ParityError):
            return False
        return True

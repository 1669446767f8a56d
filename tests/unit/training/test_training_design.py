"""The design matrix of linear models and perceptrons, made by blocks of rows: that of all rows at once."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from cumulant.core.servable import Input
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.trainers import linear_trainer
from cumulant.training.trainers.linear_trainer import Design

NUMBERS = (Input("amount", "number"), Input("age", "number"))
TEXTS = (Input("kind", "category", categories=("a", "b", "c")), Input("empty", "category"))


def rows(inputs: tuple[Input, ...], count: int, *, missing: float = 0.2) -> Matrix:
    draw = np.random.default_rng(5)
    columns = [draw.integers(0, 3, count) if one.kind == "category" else draw.lognormal(3, 2, count) for one in inputs]
    matrix = np.stack(columns, axis=1).astype(np.float32)
    matrix[draw.random(matrix.shape) < missing] = np.nan
    for place, one in enumerate(inputs):
        if one.kind == "category" and not one.categories:
            matrix[:, place] = np.nan
    return matrix


def design(inputs: tuple[Input, ...], matrix: Matrix) -> Design:
    return Design(inputs, lambda place: matrix[:, place].astype(np.float64))


def table(inputs: tuple[Input, ...], matrix: Matrix, kind: Any = np.float64) -> Any:
    return design(inputs, matrix).table(len(matrix), lambda rows: matrix[rows], kind)


def dense(made: Any) -> Any:
    return made.toarray() if sparse.issparse(made) else made  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("inputs", [NUMBERS, TEXTS, (*NUMBERS, *TEXTS), (TEXTS[0], NUMBERS[0])])
def test_blocks_of_rows_make_the_table_of_all_rows(
    monkeypatch: pytest.MonkeyPatch, inputs: tuple[Input, ...], kind: Any
) -> None:
    matrix = rows(inputs, 1000)
    whole = table(inputs, matrix, kind)
    monkeypatch.setattr(linear_trainer, "_BLOCK", 37)
    found = table(inputs, matrix, kind)
    assert found.dtype == whole.dtype == kind
    assert np.array_equal(dense(found), dense(whole))
    if sparse.issparse(whole):
        assert np.array_equal(found.indices, whole.indices)  # type: ignore[attr-defined]
        assert np.array_equal(found.indptr, whole.indptr)  # type: ignore[attr-defined]
        assert found.indices.dtype == np.int32


def test_numbers_are_scaled_and_flagged_where_they_are_missing() -> None:
    matrix = np.array([[1, 0], [3, np.nan], [np.nan, np.nan], [5, 1]], dtype=np.float32)
    found = dense(table((NUMBERS[0], TEXTS[0]), matrix))
    spread = np.array([1, 3, 3, 5]).std()
    assert np.allclose(found[:, 0], (np.array([1, 3, 3, 5]) - 3) / spread)
    assert found[:, 1].tolist() == [0, 0, 1, 0]
    assert found[:, 2:].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("count", "missing", "order"),
    [(2, 0.0, "C_CONTIGUOUS"), (2, 0.2, "F_CONTIGUOUS"), (1, 0.0, "C_CONTIGUOUS"), (1, 0.2, "C_CONTIGUOUS")],
)
def test_the_order_in_memory_stays_what_models_were_fitted_with(count: int, missing: float, order: str) -> None:
    assert table(NUMBERS[:count], rows(NUMBERS[:count], 100, missing=missing)).flags[order]


def test_a_table_takes_little_more_than_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_trainer, "_BLOCK", 1000)
    inputs = (*(Input(f"n{one}", "number") for one in range(12)), *TEXTS)
    matrix = rows(inputs, 50_000, missing=0.0)
    dense(table(inputs, matrix[:100]))
    tracemalloc.start()
    try:
        made = table(inputs, matrix)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * (made.data.nbytes + made.indices.nbytes + made.indptr.nbytes)

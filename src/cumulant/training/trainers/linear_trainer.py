"""Logistic regression and ridge, fitted with scikit-learn, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from cumulant.core.servable import Input
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats, LinearWeights, Payload
from cumulant.training.spec import Parameter, linear_name
from cumulant.training.trainers.trainer import FitResult, Params, Plain, Problem, TrainingSample, shares

#: strength of the penalty: C of the logistic regression, alpha of the ridge
DEFAULTS: dict[str, Parameter] = {"C": 1.0, "alpha": 1.0}
#: rows that are scaled at a time: what is made meanwhile is some ten times a row of the matrix
_BLOCK = 8_192

#: [n] the values of one column, and the rows of a slice, [n, k]
Column = Callable[[int], Floats]
Rows = Callable[[slice], Matrix | Floats]


class Linear(Plain):
    """Numbers: missing as the median (with a flag), scaled to one; texts: one weight a value, one for missing."""

    def __init__(self, name: str = "linear") -> None:
        self.name = name

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        matrix = train.matrix
        design = Design(problem.inputs, lambda place: matrix[:, place].astype(np.float64))
        estimator = _estimator(problem, DEFAULTS | dict(params))
        # the logistic regression would copy another order
        order: Literal["C"] | None = None if problem.task == "regression" else "C"
        table = design.table(len(matrix), lambda rows: matrix[rows], order=order)
        if problem.task == "regression":
            estimator.fit(table, train.target, sample_weight=train.weight)
            return FitResult(
                payload=design.weights(np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_), None)
            )
        estimator.fit(table, train.target.astype(np.int64), sample_weight=train.weight)
        coefficients, bias = estimator.coef_, estimator.intercept_
        if problem.task == "multiclass":
            coefficients, bias = _all_classes(estimator, len(problem.classes))
        return FitResult(
            payload=design.weights(coefficients, bias, "softmax" if problem.task == "multiclass" else "sigmoid")
        )

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Standardised weights; of a text feature the spread of its weights."""
        assert isinstance(payload, LinearWeights)
        amounts = np.zeros(len(problem.inputs))
        for place, column in enumerate(payload.columns):
            amounts[column] = float(np.abs(payload.weight[place]).mean())
        for column, table in payload.tables.items():
            amounts[column] = float(np.std(np.array(table), axis=0).mean())
        return shares([input_.feature for input_ in problem.inputs], amounts)


def _estimator(problem: Problem, params: Params) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if linear_name(problem.task) == "ridge":
        return Ridge(alpha=params["alpha"], solver="lsqr", copy_X=False)
    return LogisticRegression(C=params["C"], max_iter=300, tol=1e-5)


def check(problem: Problem, params: Params) -> None:
    """Raises ValueError where a value of `params` is none that the estimator takes."""
    _estimator(problem, DEFAULTS | dict(params))._validate_params()  # noqa: SLF001 - what each fit begins with


def _all_classes(estimator: Any, count: int) -> tuple[Floats, Floats]:
    """Weights for every class; one that the rows did not hold is all but impossible."""
    present = np.asarray(estimator.classes_, dtype=np.int64)
    coefficients, bias = estimator.coef_, estimator.intercept_
    if len(present) == 2:  # two of several classes were held: one row of weights, for the second
        coefficients, bias = np.vstack([-coefficients, coefficients]) / 2, np.r_[-bias, bias] / 2
    full, offsets = np.zeros((count, coefficients.shape[1])), np.full(count, float(np.min(bias)) - 20.0)
    full[present], offsets[present] = coefficients, bias
    return full, offsets


class Design:
    """How the matrix becomes columns of a linear model, learned from training rows."""

    def __init__(self, inputs: Sequence[Input], column: Column, *, least_scale: float = 0.0) -> None:
        """Numbers are divided by their spread, or by `least_scale` where that is more."""
        self.numbers = [place for place, item in enumerate(inputs) if item.kind != "category"]
        self.categories = {place: len(item.categories) for place, item in enumerate(inputs) if item.kind == "category"}
        # one column at a time: all of them in 64 bits are several times the matrix
        scalings = [_scaling(column(place)) for place in self.numbers]
        self.fill = np.array([item.fill for item in scalings])
        self.mean = np.array([item.mean for item in scalings])
        self.scale = np.maximum(np.array([item.scale for item in scalings]), least_scale)
        self.flagged = np.flatnonzero([item.flagged for item in scalings])

    def table(
        self,
        rows: int,
        part: Rows,
        kind: type[np.floating[Any]] = np.float64,
        *,
        order: Literal["C", "F"] | None = None,
    ) -> Any:
        """[rows, columns] of `kind`: scaled numbers, flags of missing ones, one column a category and one for missing
        texts. Without texts an array, in memory in this `order` where one is given, else a sparse one. `part` gives the
        rows of a slice.
        """
        if self.categories:
            return self._sparse(rows, part, kind)
        # the order in memory decides the rounding of a product: that of arrays of columns with their flags beside them
        order = order or ("F" if len(self.flagged) and len(self.numbers) > 1 else "C")
        table = np.empty((rows, len(self.numbers) + len(self.flagged)), dtype=kind, order=order)
        for block in _blocks(rows):
            table[block] = self._dense(part(block))
        return table

    def _dense(self, matrix: Matrix | Floats) -> Floats:
        values = matrix[:, self.numbers].astype(np.float64)
        unknown = np.isnan(values)
        scaled = (np.where(unknown, self.fill, values) - self.mean) / self.scale
        return np.hstack([scaled, unknown[:, self.flagged].astype(np.float64)])

    def _sparse(self, rows: int, part: Rows, kind: type[np.floating[Any]]) -> Any:
        """Rows in blocks, each put behind the others in arrays that are filled only as far as there are values."""
        from scipy import sparse

        width = len(self.numbers) + len(self.flagged) + sum(count + 1 for count in self.categories.values())
        most = rows * (len(self.numbers) + len(self.flagged) + len(self.categories))
        index = np.int32 if max(most, width) <= np.iinfo(np.int32).max else np.int64
        data, columns = np.empty(most, dtype=kind), np.empty(most, dtype=index)
        ends, end = np.zeros(rows + 1, dtype=index), 0
        for block in _blocks(rows):
            matrix = self._sparse_block(part(block))
            begin, end = end, end + matrix.nnz
            data[begin:end], columns[begin:end] = matrix.data, matrix.indices
            ends[block.start + 1 : block.stop + 1] = matrix.indptr[1:] + begin
        return sparse.csr_array((data[:end], columns[:end], ends), shape=(rows, width))

    def _sparse_block(self, matrix: Matrix | Floats) -> Any:
        from scipy import sparse

        blocks: list[Any] = [sparse.csr_array(self._dense(matrix))]
        for place, count in self.categories.items():
            codes = np.where(np.isnan(matrix[:, place]), count, matrix[:, place]).astype(np.int64)
            row = np.arange(len(matrix))
            blocks.append(sparse.csr_array((np.ones(len(matrix)), (row, codes)), shape=(len(matrix), count + 1)))
        return sparse.hstack(blocks, format="csr")

    def weights(self, coefficients: Floats, bias: Floats, link: Any) -> LinearWeights:
        """`coefficients` [outputs, columns] taken apart again."""
        outputs, count = len(coefficients), len(self.numbers)
        weight, rest = coefficients[:, :count].T, coefficients[:, count:].T
        missing = np.zeros((count, outputs))
        missing[self.flagged] = rest[: len(self.flagged)]
        start, tables = len(self.flagged), {}
        for place, size in self.categories.items():
            tables[place] = _rows(rest[start : start + size + 1])
            start += size + 1
        return LinearWeights(
            columns=tuple(self.numbers),
            fill=tuple(self.fill.tolist()),
            mean=tuple(self.mean.tolist()),
            scale=tuple(self.scale.tolist()),
            weight=_rows(weight),
            missing=_rows(missing),
            tables=tables,
            bias=tuple(bias.tolist()),
            link="identity" if link is None else link,
        )


class _Scaling(NamedTuple):
    """Of one number: what stands for a missing value, mean and spread, and whether missing ones are flagged."""

    fill: float
    mean: float
    scale: float
    flagged: bool


def _scaling(values: Floats) -> _Scaling:
    unknown = np.isnan(values)
    empty = bool(unknown.all())
    fill = 0.0 if empty else float(np.nanmedian(values))
    filled = np.where(unknown, fill, values)
    mean, spread = filled.mean(), filled.std()
    # a constant column gives no information, and its rounding noise must not be blown up
    wide = spread > 1e-12 * np.maximum(np.abs(mean), 1e-30)
    return _Scaling(fill, float(mean), float(spread) if wide else 1.0, bool(unknown.any()) and not empty)


def _blocks(rows: int) -> Iterator[slice]:
    for begin in range(0, rows, _BLOCK):
        yield slice(begin, min(begin + _BLOCK, rows))


def _rows(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())

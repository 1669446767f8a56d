"""Logistic regression and ridge, fitted with scikit-learn, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cumulant.core.servable import Input
from cumulant.training.encoding import Matrix
from cumulant.training.payloads import Floats, LinearWeights, Payload
from cumulant.training.spec import Parameter, linear_name
from cumulant.training.trainers import Fit, Params, Plain, Problem, Sample, shares

#: strength of the penalty: C of the logistic regression, alpha of the ridge
DEFAULTS: dict[str, Parameter] = {"C": 1.0, "alpha": 1.0}


class Linear(Plain):
    """Numbers: missing as the median (with a flag), scaled to one; texts: one weight a value, one for missing."""

    def __init__(self, name: str = "linear") -> None:
        self.name = name

    def fit(self, problem: Problem, params: Params, train: Sample) -> Fit:
        design = Design(problem.inputs, train.matrix)
        estimator = _estimator(problem, DEFAULTS | dict(params))
        table = design.table(train.matrix)
        if problem.task == "regression":
            estimator.fit(table, train.target, sample_weight=train.weight)
            return Fit(
                payload=design.weights(np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_), None)
            )
        estimator.fit(table, train.target.astype(np.int64), sample_weight=train.weight)
        coefficients, bias = estimator.coef_, estimator.intercept_
        if problem.task == "multiclass":
            coefficients, bias = _all_classes(estimator, len(problem.classes))
        return Fit(payload=design.weights(coefficients, bias, "softmax" if problem.task == "multiclass" else "sigmoid"))

    def importance(self, problem: Problem, payload: Payload) -> dict[str, float]:
        """Standardised weights; of a text feature the spread of its weights."""
        assert isinstance(payload, LinearWeights)
        amounts = np.zeros(len(problem.inputs))
        for place, column in enumerate(payload.columns):
            amounts[column] = float(np.abs(payload.weight[place]).mean())
        for column, table in payload.tables.items():
            amounts[column] = float(np.std(np.array(table), axis=0).mean())
        return shares([one.feature for one in problem.inputs], amounts)


def _estimator(problem: Problem, params: Params) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if linear_name(problem.task) == "ridge":
        return Ridge(alpha=params["alpha"], solver="lsqr")
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

    def __init__(self, inputs: Sequence[Input], matrix: Matrix | Floats, *, least_scale: float = 0.0) -> None:
        """Numbers are divided by their spread, or by `least_scale` where that is more."""
        self.numbers = [place for place, one in enumerate(inputs) if one.kind != "category"]
        self.categories = {place: len(one.categories) for place, one in enumerate(inputs) if one.kind == "category"}
        values = matrix[:, self.numbers].astype(np.float64)
        unknown = np.isnan(values)
        empty = unknown.all(axis=0)
        self.fill = (
            np.where(empty, 0.0, np.nanmedian(np.where(empty, 0.0, values), axis=0)) if self.numbers else np.zeros(0)
        )
        filled = np.where(unknown, self.fill, values)
        self.mean, spread = filled.mean(axis=0), filled.std(axis=0)
        # a constant column gives no information, and its rounding noise must not be blown up
        wide = spread > 1e-12 * np.maximum(np.abs(self.mean), 1e-30)
        self.scale = np.maximum(np.where(wide, spread, 1.0), least_scale)
        self.flagged = np.flatnonzero(unknown.any(axis=0) & ~empty)

    def table(self, matrix: Matrix | Floats) -> Any:
        """[n, columns]: scaled numbers, flags of missing ones, one column a category and one for missing texts."""
        from scipy import sparse

        values = matrix[:, self.numbers].astype(np.float64)
        unknown = np.isnan(values)
        dense = np.hstack(
            [
                (np.where(unknown, self.fill, values) - self.mean) / self.scale,
                unknown[:, self.flagged].astype(np.float64),
            ]
        )
        blocks: list[Any] = [dense]
        for place, count in self.categories.items():
            codes = np.where(np.isnan(matrix[:, place]), count, matrix[:, place]).astype(np.int64)
            row = np.arange(len(matrix))
            blocks.append(sparse.csr_array((np.ones(len(matrix)), (row, codes)), shape=(len(matrix), count + 1)))
        if len(blocks) == 1:
            return dense
        return sparse.hstack([sparse.csr_array(dense), *blocks[1:]], format="csr")

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


def _rows(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())

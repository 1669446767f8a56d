"""Features as the float32 matrix of a model, by `core.servable.Input`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.errors import DefinitionError, did_you_mean
from cumulant.core.servable import Input

Matrix = NDArray[np.float32]

#: more values than this of one text column are rare or name their rows; the rest counts as missing
MOST_CATEGORIES = 250
#: of a text whose values get means of the target, as many are distinguished
MOST_VALUES = 10_000
#: a value with fewer training rows teaches nothing that holds
LEAST_CATEGORY_ROWS = 3
#: numbers are centred when float32 would blur them by more than this part of their spread
_BLUR = 1e-5


def derive_inputs(features: pl.DataFrame, *, most: int = MOST_CATEGORIES) -> tuple[Input, ...]:
    """How each feature enters the model, learned from training rows only.

    Texts become codes in the order of how often they occur (ties by name), at most `most` of them.
    Numbers far from zero against their spread (epoch seconds, ids) get a `center`.
    """
    return tuple(_input(features[name], most) for name in features.columns)


def _input(column: pl.Series, most: int) -> Input:
    if column.dtype == pl.Boolean:
        return Input(column.name, "flag")
    if column.dtype.is_numeric():
        return Input(column.name, "number", center=_center(column))
    return Input(column.name, "category", categories=_vocabulary(column, most))


def _vocabulary(column: pl.Series, most: int) -> tuple[str, ...]:
    counted = (
        column.cast(pl.String).drop_nulls().value_counts(name="rows").filter(pl.col("rows") >= LEAST_CATEGORY_ROWS)
    )
    ranked = counted.sort(["rows", column.name], descending=[True, False])
    return tuple(ranked[column.name].head(most).to_list())


def _center(column: pl.Series) -> float:
    values = np.asarray(column.cast(pl.Float64).fill_null(np.nan).to_numpy(), dtype=np.float64)
    values = values[np.abs(values) <= np.finfo(np.float32).max]  # others are missing in the matrix
    if not len(values):
        return 0.0
    blur = float(np.abs(values).max()) * float(np.finfo(np.float32).eps)
    spread = float(values.std()) or 1.0
    if blur <= _BLUR * spread:
        return 0.0
    # A round number near the middle: as good as the median itself, which would show somebody's value.
    step = 10.0 ** np.floor(np.log10(spread))
    return float(np.round(np.median(values) / step) * step)


def encode(features: pl.DataFrame, inputs: Sequence[Input]) -> Matrix:
    """[n, k] float32, NaN where a value is missing, unseen or too large.

    Raises:
        DefinitionError: a feature is absent or of another kind than in training.
    """
    matrix = np.empty((len(features), len(inputs)), dtype=np.float32)
    for place, input_ in enumerate(inputs):
        if input_.feature not in features.columns:
            raise DefinitionError(
                f"the model reads the feature {input_.feature}, which these rows do not have",
                subject=input_.feature,
                hint=did_you_mean(input_.feature, features.columns),
            )
        column = features[input_.feature]
        matrix[:, place] = _codes(column, input_) if input_.kind == "category" else _numbers(column, input_)
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def _numbers(column: pl.Series, input_: Input) -> NDArray[np.float32]:
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise DefinitionError(f"the feature {input_.feature} is {column.dtype} where the model reads a number")
    values = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    with np.errstate(over="ignore"):
        return np.asarray(values - input_.center, dtype=np.float32)


def _codes(column: pl.Series, input_: Input) -> NDArray[np.float32]:
    if not input_.categories:
        return np.full(len(column), np.nan, dtype=np.float32)
    codes = column.cast(pl.String).replace_strict(
        list(input_.categories), list(range(len(input_.categories))), default=None, return_dtype=pl.Float32
    )
    return np.asarray(codes.fill_null(np.nan).to_numpy(), dtype=np.float32)

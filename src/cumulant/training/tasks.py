"""What kind of problem a target is, and the target as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.core.servable import Task
from cumulant.training.class_names import label

Floats = NDArray[np.float64]

MOST_CLASSES = 100
LEAST_ROWS = 20
LEAST_OF_A_CLASS = 5


@dataclass(frozen=True, kw_only=True)
class TargetValues:
    """values: [n] float64; 0 or 1, the position in `classes`, or the number; NaN where there is no label."""

    task: Task
    classes: tuple[str, ...]
    values: Floats

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.values)


def detect(
    series: pl.Series, *, name: str, task: Literal["auto", "binary", "multiclass", "regression"] = "auto"
) -> TargetValues:
    """The task of a target and its values. The positive class is the later in order: `true`, `Yes`, `1`.

    Raises:
        DataError: the target is null, constant, has too few rows or is of a kind that cannot be learned.
    """
    cleaned = _cleaned(series, name)
    labels = cleaned.drop_nulls()
    if not len(labels):
        raise DataError(f"the target {name} is null in every row", subject=name, hint="check when it becomes known")
    distinct = labels.unique().sort()
    if len(distinct) == 1:
        text = label(distinct[0])
        raise DataError(
            f'the target {name} is "{text}" in all of its {len(labels)} labelled rows:'
            " there is only one class to learn",
            subject=name,
            hint="check the target expression, `since` and which rows the source holds",
        )
    detected = _task(cleaned, distinct, name) if task == "auto" else _checked(task, cleaned, distinct, name)
    target = encode(cleaned, task=detected, classes=() if detected == "regression" else tuple(map(label, distinct)))
    _check_counts(target, name)
    return target


def encode(series: pl.Series, *, task: Task, classes: Sequence[str]) -> TargetValues:
    """A target's values for a task that is known already; a class that is not among `classes` has no label."""
    if task == "regression":
        values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        return TargetValues(task=task, classes=(), values=np.asarray(values, dtype=np.float64))
    place = {text: float(number) for number, text in enumerate(classes)}
    distinct = series.drop_nulls().unique()
    codes = {value: place[label(value)] for value in distinct.to_list() if label(value) in place}
    values = np.full(len(series), np.nan)
    if codes:
        mapped = series.replace_strict(list(codes), list(codes.values()), default=None, return_dtype=pl.Float64)
        values = np.asarray(mapped.fill_null(np.nan).to_numpy(), dtype=np.float64)
    return TargetValues(task=task, classes=tuple(classes), values=values)


def _cleaned(series: pl.Series, name: str) -> pl.Series:
    kind = series.dtype
    if isinstance(kind, pl.Decimal):
        series, kind = series.cast(pl.Float64), pl.Float64()
    if isinstance(kind, (pl.Categorical, pl.Enum)):
        return series.cast(pl.String)
    if kind == pl.Null or kind in (pl.Boolean, pl.String) or kind.is_integer():
        return series
    if not kind.is_float():
        raise DataError(
            f"the target {name} is of type {kind}, which cannot be learned",
            subject=name,
            hint="write it as text or as a number in the data"
            if kind == pl.Binary()
            else "compare it or take a number of it, as in `arr_delay > 15`",
        )
    series = series.fill_nan(None)
    infinite = int(series.is_infinite().sum())
    if infinite:
        raise DataError(f"the target {name} is infinite in {infinite} rows", subject=name)
    return series


def _task(series: pl.Series, distinct: pl.Series, name: str) -> Task:
    if len(distinct) == 2:
        return "binary"
    if series.dtype.is_numeric():
        return "regression"
    return _checked("multiclass", series, distinct, name)


def _checked(task: Task, series: pl.Series, distinct: pl.Series, name: str) -> Task:
    if task == "regression" and not series.dtype.is_numeric():
        raise DataError(f"the target {name} holds no numbers, so it cannot be a regression", subject=name)
    if task == "binary" and len(distinct) != 2:
        raise DataError(f"the target {name} has {len(distinct)} values where binary needs two", subject=name)
    if task == "multiclass" and len(distinct) > MOST_CLASSES:
        raise DataError(
            f"the target {name} has {len(distinct)} different values, too many for classes (at most {MOST_CLASSES})",
            subject=name,
            hint=f"group rare values, or make it a number, for a column by rules: {{{name}: {{type: float}}}}",
        )
    return task


def _check_counts(target: TargetValues, name: str) -> None:
    values = target.values[target.labelled]
    if len(values) < LEAST_ROWS:
        raise DataError(
            f"the target {name} has {len(values)} labelled rows; at least {LEAST_ROWS} are needed",
            subject=name,
            hint="give the source more rows, or check when the target becomes known",
        )
    for number, text in enumerate(target.classes):
        count = int((values == number).sum())
        if count < LEAST_OF_A_CLASS:
            raise DataError(
                f'class "{text}" of the target {name} has {count} rows; at least {LEAST_OF_A_CLASS} are needed',
                subject=name,
                hint="take more rows, or group rare classes",
            )

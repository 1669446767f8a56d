"""Reference values of features, against which explanations measure contributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.servable import Input

if TYPE_CHECKING:
    import polars as pl

Reference = str | int | float | bool | None

#: a value of fewer rows could be personal
_LEAST_ROWS = 3


def reference_values(features: pl.DataFrame, inputs: Sequence[Input]) -> dict[str, Reference]:
    """Typical value by feature in these training rows; null where no row has one.

    Numbers: the median, rounded to a part of the middle half's width where fewer than three rows hold it. Flags: the
    commoner one. Texts: the commonest that the model knows.
    """
    return {declared.feature: _usual(features[declared.feature], declared) for declared in inputs}


def _usual(column: pl.Series, declared: Input) -> Reference:
    match declared.kind:
        case "category":
            return declared.categories[0] if declared.categories else None
        case "flag":
            share = column.mean()
            return None if share is None else float(share) > 0.5  # type: ignore[arg-type]
        case "number":
            return _median(column)


def _median(column: pl.Series) -> float | None:
    import polars as pl

    values = column.cast(pl.Float64).drop_nulls().to_numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), method="lower").tolist()
    if np.count_nonzero(values == middle) >= _LEAST_ROWS:
        return float(middle)
    step = 10.0 ** np.floor(np.log10((high - low) / 2 or abs(middle) or 1.0))
    return float(np.round(middle / step) * step)

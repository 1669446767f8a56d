"""Features and fields whose unseen categories, nulls or negative values are worth a warning in a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cumulant.core.servable import Input

if TYPE_CHECKING:
    import polars as pl

#: the largest share of rows whose value may lie outside, by the upper end of its 95% interval
_MOST = 0.01
#: rows that may lie outside of so few that lay there: the rule of three
_UNSEEN_ROWS = 3


def closed_features(features: pl.DataFrame, inputs: Sequence[Input]) -> tuple[str, ...]:
    """Features whose categories cover at least 99% of these training rows with a value; others never warn."""
    return tuple(
        declared.feature
        for declared in inputs
        if declared.kind == "category" and _is_closed(features[declared.feature], declared.categories)
    )


def _is_closed(column: pl.Series, categories: Sequence[str]) -> bool:
    import polars as pl

    present = column.drop_nulls().cast(pl.String)
    outside = int((~present.is_in(list(categories))).sum())
    return outside + _UNSEEN_ROWS <= _MOST * len(present)


def complete_fields(names: Iterable[str], nulls: Mapping[str, int], rows: int) -> tuple[str, ...]:
    """Fields without nulls in so many rows that at most 1% of later rows have one; `nulls`: nulls by field."""
    if rows * _MOST < _UNSEEN_ROWS:
        return ()
    return tuple(name for name in names if nulls.get(name) == 0)


def nonnegative_fields(lowest: Mapping[str, float | None], present: Mapping[str, int]) -> tuple[str, ...]:
    """Number fields without negative values in so many rows that at most 1% of later rows have one.

    `lowest`: least value by field, None where unknown; `present`: rows with a value by field.
    """
    return tuple(
        name
        for name, value in lowest.items()
        if value is not None and value >= 0 and present[name] * _MOST >= _UNSEEN_ROWS
    )

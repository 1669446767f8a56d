"""Times of the same rows, such as ordered, shipped and decided: which of them come first."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

#: share of rows in which a time may not be after another, to count as the earlier of the two
_NEARLY_ALL = 0.95
#: two columns are times of the same rows where the median time between them is at most this share of their span,
_NEAR = 0.25
#: or at most the whole span where the second has at least this share of the first one's distinct values
_ALIKE = 0.5


def earliest_column(times: pl.DataFrame) -> str:
    """The column that is first in nearly all rows; the first column where none is.

    Columns of other things than the row, such as the day on which its customer signed up, are not compared.
    """
    names = [name for name in times.columns if are_of_same_rows(times, times.columns[0], name)]
    return next((name for name in names if all(is_before(times, name, other) for other in names)), times.columns[0])


def later_columns(times: pl.DataFrame, event: str) -> Sequence[str]:
    """The columns that are after `event` in all rows that have both, the latest first."""
    after = [
        name
        for name in times.columns
        if name != event
        and is_before(times, event, name, share=1.0)
        and not is_before(times, name, event, share=_NEARLY_ALL)
    ]
    return sorted(after, key=lambda name: -sum(is_before(times, other, name) for other in after))


def is_before(times: pl.DataFrame, first: str, second: str, *, share: float = _NEARLY_ALL) -> bool:
    """Whether `first` is at or before `second` in that share of the rows; by day where one of them holds days."""
    pair = times.select(first, second) if first != second else times.select(first)
    if any(_holds_days(pair[name]) for name in pair.columns):
        pair = pair.select(pl.all().dt.truncate("1d"))
    in_order = (pair[first] <= pair[second]).drop_nulls()
    return in_order.len() > 0 and int(in_order.sum()) >= share * in_order.len()


def are_of_same_rows(times: pl.DataFrame, first: str, second: str) -> bool:
    """Whether two columns can be times of the same event rather than of a row's customer or batch."""
    apart = times.select((pl.col(first) - pl.col(second)).abs().median().dt.total_seconds()).item()
    span = times.select((pl.col(first).max() - pl.col(first).min()).dt.total_seconds()).item()
    if apart is None or span is None:
        return first == second
    alike = times[second].n_unique() >= _ALIKE * times[first].n_unique()
    return bool(apart <= (span if alike else _NEAR * span))


def _holds_days(times: pl.Series) -> bool:
    known = times.drop_nulls()
    return bool((known == known.dt.truncate("1d")).all())

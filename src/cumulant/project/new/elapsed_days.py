"""Which further times of a row a first project takes for features: days from them to the event time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.project.new.leaks import gives_away, missing_predicts

if TYPE_CHECKING:
    import polars as pl

#: rows that hold both times, at least: in fewer, that none is later says little
_FEW_ROWS = 50
_DAY = timedelta(days=1)


class Elapsed(msgspec.Struct, frozen=True):
    """A feature: the days from `since` to `column`, the event time."""

    feature: str
    column: str
    since: str


def elapsed_days(
    rows: pl.DataFrame, column: str | None, others: Sequence[str], label: pl.Series
) -> tuple[Elapsed, ...]:
    """Those of `others` that hold times, none of them after the event time `column` of its row: a later one, such as a
    delivery, may not be known when the row is predicted. No feature determines the target `label` alone, as the day of
    a cancellation does that only cancelled rows have, and no column is taken whose missing values predict it. A date of
    the day of the event may be later than the event.
    """
    if column is None:
        return ()
    taken, result = list(rows.columns), list[Elapsed]()
    for name in others:
        if name != column and _is_earlier(rows, name, column, label):
            feature = _named(name, taken)
            taken.append(feature)
            result.append(Elapsed(feature, column, name))
    return tuple(result)


def _is_earlier(rows: pl.DataFrame, name: str, column: str, label: pl.Series) -> bool:
    import polars as pl

    if not all(isinstance(rows[time_column].dtype, (pl.Datetime, pl.Date)) for time_column in (name, column)):
        return False
    since, at = (rows[time_column].cast(pl.Datetime("us")) for time_column in (name, column))
    apart = at - since
    known = apart.drop_nulls()
    if known.len() < _FEW_ROWS or known.n_unique() < 2 or (known < (_DAY if _are_dates(since) else timedelta())).any():
        return False
    return not (gives_away(apart.dt.total_microseconds(), label) or missing_predicts(apart, label))


def _are_dates(times: pl.Series) -> bool:
    """Whether no value has a time of day: what it stands for may be as late as the end of its day."""
    return bool((times == times.dt.truncate("1d")).all())


def _named(name: str, taken: Sequence[str]) -> str:
    stem = name.strip("_") if name.isascii() and name.strip("_").isidentifier() else "other_time"
    feature = f"days_since_{stem}"
    while feature in taken:
        feature += "_2"
    return feature

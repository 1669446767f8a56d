"""Rows that were corrected or deleted, as they were in force at a moment: reading what `versions` dated."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from cumulant.core.units import to_micros
from cumulant.data.row_columns import FROM, ROW, UNTIL

HIDDEN = "__hidden"


def is_in_force(as_of: int | pl.Expr | None) -> pl.Expr:
    """Whether a row is in force at a moment in microseconds, or at that of its column; None: at the end."""
    if as_of is None:
        return pl.col(UNTIL).is_null()
    begun = (pl.col(FROM) <= as_of).fill_null(value=True)
    return begun & (pl.col(UNTIL) > as_of).fill_null(value=True)


def filter_in_force(frame: pl.LazyFrame, dates: pl.LazyFrame, as_of: datetime | None) -> pl.LazyFrame:
    """The rows that are in force at a moment; None: at the end."""
    gone = pl.col(HIDDEN) | ~is_in_force(None if as_of is None else to_micros(as_of))
    return frame.join(dates.filter(gone).select(ROW), on=ROW, how="anti", maintain_order="left")


def filter_hidden_at_end(frame: pl.LazyFrame, dates: pl.LazyFrame, as_of: datetime | None) -> pl.LazyFrame:
    """The hidden rows that no later row follows by a moment, with that from which each is in force."""
    hidden = dates.filter(pl.col(HIDDEN), is_in_force(None if as_of is None else to_micros(as_of)))
    return frame.join(hidden.select(ROW, FROM), on=ROW, how="inner", maintain_order="left")


def with_dates(frame: pl.LazyFrame, dates: pl.LazyFrame, as_of: datetime | None) -> pl.LazyFrame:
    """All rows that were in force at some time up to a moment, with these times as columns."""
    gone, until = pl.col(HIDDEN), pl.col(UNTIL)
    if as_of is not None:
        limit = to_micros(as_of)
        gone |= (pl.col(FROM) > limit).fill_null(value=False)
        until = pl.when(until <= limit).then(until)
    stays = frame.join(dates.filter(gone).select(ROW), on=ROW, how="anti", maintain_order="left")
    dates = dates.select(ROW, FROM, until.alias(UNTIL))
    return stays.join(dates, on=ROW, how="left", maintain_order="left")

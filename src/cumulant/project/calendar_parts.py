"""Which calendar parts of the event time a first project takes for features: those whose cycle the rows cover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import polars as pl

_DAY = 86_400
#: part -> seconds that the rows must span. A day and a week twice, so that no value stands for one day alone. A year
#: and a quarter of it: the rows that are learned from, without a test of a fifth, still hold every month. Over less
#: a month is a position in time, which tells how old a row is, and none of the months to come was seen.
_LEAST_SPAN: dict[str, int] = {
    "hour": 2 * _DAY,
    "weekday": 14 * _DAY,
    "month": 457 * _DAY,
    "day_of_year": 457 * _DAY,
}


class CalendarPart(msgspec.Struct, frozen=True):
    """A feature that is a part of a time: `part` is a method of `.dt`, in UTC."""

    feature: str
    column: str
    part: str


def calendar_parts(rows: pl.DataFrame, column: str | None) -> tuple[tuple[CalendarPart, ...], list[str]]:
    """The parts of `column`, which holds the moment of prediction, and a note on what is used and what is not."""
    import polars as pl

    if column is None or not isinstance(rows.schema[column], (pl.Datetime, pl.Date)):
        return (), []
    times = rows[column].cast(pl.Datetime("us")).drop_nulls()
    if not times.len():
        return (), []
    span = (times.max() - times.min()).total_seconds()  # type: ignore[operator, union-attr]
    values = {
        "hour": times.dt.hour(),
        "weekday": times.dt.weekday(),
        "month": times.dt.month(),
        "day_of_year": times.dt.ordinal_day(),
    }
    varying = [part for part in _LEAST_SPAN if values[part].n_unique() > 1]
    parts = [part for part in varying if span >= _LEAST_SPAN[part]]
    short = [part for part in varying if part not in parts]
    return _named(parts, column, rows.columns), _notes(column, parts, short)


def _named(parts: list[str], column: str, taken: list[str]) -> tuple[CalendarPart, ...]:
    stem = column.strip("_") if column.isascii() and column.strip("_").isidentifier() else "event"
    result = []
    for part in parts:
        name = f"{stem}_{part}"
        while name in taken:
            name += "_utc"
        result.append(CalendarPart(name, column, part))
    return tuple(result)


def _notes(column: str, parts: list[str], short: list[str]) -> list[str]:
    notes = []
    if parts:
        notes.append(
            f"parts of {column} in UTC are features: {', '.join(parts)} (a local clock: name its zone in features.py)"
        )
    if short:
        notes.append(
            f"not used by the model: {', '.join(short)} of {column} (the rows cover too little time: "
            "it would only tell how old a row is)"
        )
    return notes

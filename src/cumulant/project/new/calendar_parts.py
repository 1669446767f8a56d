"""Which calendar parts of the event time a first project takes for features: those whose cycle the rows cover."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import polars as pl

_DAY = 86_400
#: part -> seconds that the rows must span. A day and a week twice, so that no value stands for one day alone. A year
#: and a quarter of it: the rows that are learned from, without a test of a fifth, still hold every month. Over less
#: a month is a position in time, and none of the months to come was seen.
_LEAST_SPAN: dict[str, int] = {
    "hour": 2 * _DAY,
    "weekday": 14 * _DAY,
    "month": 457 * _DAY,
    "day_of_year": 457 * _DAY,
}
#: part -> values that the rows must hold; a month stands for the days of a year
_LEAST_VALUES = {"hour": 3, "weekday": 2, "month": 9, "day_of_year": 9}
#: share of the rows at each end that is not counted: single wrong dates are not the span of the rows
_ENDS = 0.01


class CalendarPart(msgspec.Struct, frozen=True):
    """A feature that is a part of a time: `part` is a method of `.dt`, in UTC."""

    feature: str
    column: str
    part: str


def calendar_parts(
    rows: pl.DataFrame, column: str | None, *, zoneless: bool = False
) -> tuple[tuple[CalendarPart, ...], list[str]]:
    """The parts of `column`, which holds the event time, and a note on what is used and what is not.

    `zoneless`: the data hold times without an offset, which are read as UTC.
    """
    import polars as pl

    if column is None or not isinstance(rows[column].dtype, (pl.Datetime, pl.Date)):
        return (), []
    times = rows[column].cast(pl.Datetime("us")).drop_nulls()
    if not times.len():
        return (), []
    central, span = _central(times)
    values = {
        "hour": times.dt.hour(),
        "weekday": times.dt.weekday(),
        "month": central.dt.month(),
        "day_of_year": central.dt.month(),
    }
    distinct = {part: series.n_unique() for part, series in values.items()}
    varying = [part for part, count in distinct.items() if count > 1]
    parts = [part for part in varying if span >= _LEAST_SPAN[part] and distinct[part] >= _LEAST_VALUES[part]]
    short = [part for part in varying if part not in parts]
    return _named(parts, column, rows.columns), _notes(column, parts, short, zoneless=zoneless)


def _central(times: pl.Series) -> tuple[pl.Series, float]:
    """The times without those at both ends, and the seconds that all rows span if the ends are like the others."""
    ordered = times.sort()
    last = ordered.len() - 1
    low, high = math.ceil(_ENDS * last), math.floor((1 - _ENDS) * last)
    if low >= high:
        return ordered, 0.0
    return ordered[low : high + 1], (ordered[high] - ordered[low]).total_seconds() / (1 - 2 * _ENDS)


def _named(parts: list[str], column: str, taken: list[str]) -> tuple[CalendarPart, ...]:
    stem = column.strip("_") if column.isascii() and column.strip("_").isidentifier() else "event"
    result = []
    for part in parts:
        name = f"{stem}_{part}"
        while name in taken:
            name += "_utc"
        result.append(CalendarPart(name, column, part))
    return tuple(result)


def _notes(column: str, parts: list[str], short: list[str], *, zoneless: bool) -> list[str]:
    notes = []
    if parts:
        declared = f"event_time: {{column: {column}, zone: Europe/Paris}} in cumulant.yaml, and " if zoneless else ""
        notes.append(
            f"parts of {column} in UTC are features: {', '.join(parts)} (for a local clock write {declared}"
            f'.{parts[0]}("Europe/Paris") in features.py)'
        )
    if short:
        notes.append(f"not used by the model: {', '.join(short)} of {column} (the rows cover too little of its cycle)")
    return notes

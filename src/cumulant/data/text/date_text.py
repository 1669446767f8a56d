"""Dates and times in texts that are not ISO 8601: `31/12/2024`, `12/31/24 3:15 PM`, `2024/12/31 15:04:05`."""

from __future__ import annotations

import re
from datetime import datetime
from typing import get_args

import polars as pl

from cumulant.data.spec import DateFormat

#: year of two digits: from it on 1969 to 1999, below 2000 to 2068 (as POSIX strptime)
_CENTURY = 69
_CLOCK = r"(?:(?:[T ]|, ?)\s*(\d{1,2}):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,6})\d*)?)?\s*([AaPp][Mm])?)?$"
_YEAR_LAST, _YEAR_FIRST = r"(\d{4}|\d{2})", r"(\d{4})"


def _pattern(first: str, second: str, third: str) -> str:
    """The three parts of a day between the same marks, and a time of day that may be absent."""
    return "^(?:" + "|".join(rf"{first}{mark}{second}{mark}{third}" for mark in ("/", r"\.", "-")) + ")" + _CLOCK


_DAY = r"(\d{1,2})"
#: format to what it looks like and the places of year, month and day in it
_FORMATS: dict[DateFormat, tuple[str, tuple[int, int, int]]] = {
    "31/12/2024": (_pattern(_DAY, _DAY, _YEAR_LAST), (2, 1, 0)),
    "12/31/2024": (_pattern(_DAY, _DAY, _YEAR_LAST), (2, 0, 1)),
    "2024/12/31": (_pattern(_YEAR_FIRST, _DAY, _DAY), (0, 1, 2)),
}
_SHORT_YEAR = r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{2}(?:\D|$)"
#: a year of four digits, or three numbers between slashes: others may be no dates, such as the numbers of versions
_CLEAR = r"^\d{4}[/.-]|^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}|^\d{1,2}/\d{1,2}/\d{2}(?:\D|$)"
_MARKS = 3
_HALF_DAY = 12


def read(text: pl.Expr, form: DateFormat) -> pl.Expr:
    """`text` without blanks around it as local times in microseconds; null where it is none in that format."""
    pattern, places = _FORMATS[form]
    group = text.str.extract_groups(pattern).struct.field

    def part(place: int) -> pl.Expr:
        return pl.coalesce(group(str(mark * 3 + place + 1)) for mark in range(_MARKS))

    def whole(value: pl.Expr) -> pl.Expr:
        return value.cast(pl.Int64, strict=False)

    year, month, day = (part(place) for place in places)
    number = whole(year)
    century = pl.when(number >= _CENTURY).then(number + 1900).otherwise(number + 2000)
    full = pl.when(year.str.len_chars() == 2).then(century).otherwise(number)
    hour, minute, second, fraction, half = (group(str(_MARKS * 3 + place)) for place in range(1, 6))
    afternoon = half.str.to_lowercase() == "pm"
    hours = pl.when(half.is_null()).then(whole(hour)).otherwise(_hour_of_half(whole(hour), afternoon))
    parts = [
        full.cast(pl.String).str.pad_start(4, "0"),
        pl.lit("-"),
        month,
        pl.lit("-"),
        day,
        pl.lit(" "),
        hours.fill_null(pl.when(hour.is_null()).then(0)).cast(pl.String),
        pl.lit(":"),
        minute.fill_null("00"),
        pl.lit(":"),
        second.fill_null("00"),
        pl.lit("."),
        fraction.fill_null("0"),
    ]
    return pl.concat_str(parts).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)


def _hour_of_half(hour: pl.Expr, afternoon: pl.Expr) -> pl.Expr:
    """12 AM is midnight, 12 PM noon; 0 and 13 are no hours of half a day."""
    return pl.when(hour.is_between(1, _HALF_DAY)).then(
        hour % _HALF_DAY + pl.when(afternoon).then(_HALF_DAY).otherwise(0)
    )


def read_one(text: str, form: DateFormat) -> datetime | None:
    """A single text, as `read` reads it."""
    pattern, places = _FORMATS[form]
    match = re.match(pattern, text.strip(), re.ASCII)
    if match is None:
        return None
    groups = match.groups()
    day_parts = [part for part in groups[: _MARKS * 3] if part is not None]
    year, month, day = (int(day_parts[place]) for place in places)
    if len(day_parts[places[0]]) == 2:
        year += 1900 if year >= _CENTURY else 2000
    hour, minute, second, fraction, half = groups[_MARKS * 3 :]
    hours = int(hour or 0)
    if half is not None:
        if not 1 <= hours <= _HALF_DAY:
            return None
        hours = hours % _HALF_DAY + (_HALF_DAY if half.lower() == "pm" else 0)
    micros = int((fraction or "0").ljust(6, "0"))
    try:
        return datetime(year, month, day, hours, int(minute or 0), int(second or 0), micros)  # noqa: DTZ001 - local
    except ValueError:
        return None


def has_clock(text: pl.Series) -> bool:
    """Whether a value has a time of day."""
    return bool(text.str.contains(":", literal=True).any())


def is_date(text: pl.Series) -> bool:
    """Whether every value looks like a date in one of the formats, and they are not all ISO 8601."""
    return not _is_iso(text) and any(text.str.contains(pattern).all() for pattern, _ in _FORMATS.values())


def _is_iso(text: pl.Series) -> bool:
    return bool(text.str.contains(r"^\d{4}-\d{2}-\d{2}(?:\D|$)").all())


def detect(text: pl.Series) -> DateFormat | None:
    """The format in which every value of `text` (stripped, none missing) is a date; None without exactly one.

    A day above 12 distinguishes day and month. Where a two-digit year may come first, only month/day/year is
    recognized.
    """
    if _is_iso(text) or not text.str.contains(_CLEAR).all():
        return None
    frame = text.to_frame("text")
    forms: tuple[DateFormat, ...] = get_args(DateFormat)
    fitting = [form for form in forms if not frame.select(read(pl.col("text"), form)).to_series().null_count()]
    if len(fitting) != 1 or (fitting[0] == "31/12/2024" and text.str.contains(_SHORT_YEAR).any()):
        return None
    return fitting[0]

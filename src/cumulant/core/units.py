"""Durations, sizes, shares, counts, rates and moments as text: `30d`, `64MiB`, `5%`, `2M`, `20/month`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from cumulant.core.errors import UsageError

_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)\s*")
_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(hour|day|week|month)\s*")
#: the length of a period, where a length is needed, and the form of its name in the calendar
_PERIODS = {
    "hour": (timedelta(hours=1), "%Y-%m-%dT%H"),
    "day": (timedelta(days=1), "%Y-%m-%d"),
    "week": (timedelta(days=7), "%G-W%V"),
    "month": (timedelta(days=30), "%Y-%m"),
}
_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kMG]?)\s*")
_THOUSANDS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|KiB|MiB|GiB|TiB)\s*")


def duration(text: str | timedelta) -> timedelta:
    """`30d`, `2h`, `1h30m` as a timedelta. A month has no fixed length and is refused.

    Raises:
        UsageError: `text` is not a sum of numbers with units ms, s, m (or min), h, d, w.
    """
    if isinstance(text, timedelta):
        return text
    total, end = 0.0, 0
    while end < len(text) and (match := _DURATION.match(text, end)):
        total += float(match[1]) * _SECONDS[match[2]]
        end = match.end()
    if end == 0 or end != len(text):
        raise UsageError(f'"{text}" is not a duration', hint="write a number and a unit: 90s, 15m, 2h, 30d, 4w")
    try:
        return timedelta(seconds=total)
    except OverflowError:
        raise UsageError(f'"{text[:40]}" is longer than any time', hint="write a number and a unit: 30d") from None


def show_duration(span: timedelta) -> str:
    """The shortest way to write `span` that `duration` reads back: `30d`, `2h`, `1h30m`."""
    micros, parts = round(span / timedelta(microseconds=1)), []
    sign = "-" if micros < 0 else ""
    micros = abs(micros)
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        count, micros = divmod(micros, size)
        if count:
            parts.append(f"{count}{unit}")
    if micros:
        parts.append(f"{micros / 1000:g}ms")
    return sign + ("".join(parts) or "0s")


def micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def size(text: str | int) -> int:
    """`64MiB` or `10GB` as bytes."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f'"{text}" is not a size', hint="write a number and a unit: 64MiB, 10GB")
    return int(float(match[1]) * _BYTES[match[2]])


def count(text: str | int) -> int:
    """`2M`, `500k` or `1200` as a whole number above 0."""
    match = _COUNT.fullmatch(str(text))
    # in hundredths and so on of the unit, which floats would round
    number = Fraction(match[1]) * _THOUSANDS[match[2]] if match else Fraction(0)
    if number < 1 or number.denominator != 1:
        raise UsageError(f'"{text}" is not a count', hint="write a whole number, or 500k, 2M, 1.5M")
    return int(number)


def show_count(number: int) -> str:
    """At most `number`, to three digits, as `count` reads it: `1.23M`, `450k`, `999`."""
    for unit, size in (("G", 1000**3), ("M", 1000**2), ("k", 1000)):
        if number >= size:
            step = max(1, 10 ** (len(str(number)) - 3))
            return f"{number // step * step / size:g}{unit}"
    return str(number)


def share(text: str | float) -> float:
    """`5%` or `0.05` as a fraction between 0 and 1."""
    try:
        number = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UsageError(f'"{text}" is not a share', hint="write 5% or a number from 0 to 1")
    return number


class Rate(NamedTuple):
    """A number a period of the calendar, in UTC."""

    number: float
    period: str

    def __str__(self) -> str:
        return f"{self.number:g}/{self.period}"

    @property
    def length(self) -> timedelta:
        """Of the period; a month is 30 days here."""
        return _PERIODS[self.period][0]

    def period_of(self, when: datetime) -> str:
        """The name of the period that holds `when`; later ones have greater names."""
        return f"{when:{_PERIODS[self.period][1]}}"


def rate(text: str) -> Rate:
    """`20/month` or `1.5 / hour`."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise UsageError(f'"{text}" is not a rate', hint="write a number a period: 100/day, 2/month")
    return Rate(float(match[1]), match[2])


def moment(text: str | datetime) -> datetime:
    """An ISO 8601 date or time, in UTC; without an offset it is taken as UTC.

    Raises:
        UsageError: it is none, or outside of the years 1 to 9999 in UTC.
    """
    try:
        time = text if isinstance(text, datetime) else datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f'"{text}" is not a time', hint="write 2013-04-01 or 2013-04-01T06:00:00Z") from None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(when: datetime) -> int:
    """Microseconds since 1970 UTC; a naive time is taken as UTC."""
    return (moment(when) - EPOCH) // timedelta(microseconds=1)


def from_micros(value: int) -> datetime:
    """The UTC time `value` microseconds after 1970."""
    return EPOCH + timedelta(microseconds=value)

"""Single values on the server: 64-bit whole numbers, finite floats, moments in a zone, numbers in text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cumulant.features.definition.dtypes import BLANKS

DAY = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS_1_TO_9999 = (-62_135_596_800_000_000, 253_402_300_799_999_999)
_INT_TEXT = re.compile(r"[+-]?[0-9]+")
_FLOAT_TEXT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def finite(value: float) -> float | None:
    """`value`, None where it is NaN or infinite."""
    return value if math.isfinite(value) else None


def whole(value: int) -> int | None:
    """`value`, None where it does not fit 64 bits."""
    return value if -(2**63) <= value < 2**63 else None


def zone_time(micros: int, zone: ZoneInfo) -> datetime | None:
    """The moment in a zone; None outside the years 1 to 9999."""
    if not _YEARS_1_TO_9999[0] <= micros <= _YEARS_1_TO_9999[1]:
        return None
    try:
        return (_EPOCH + timedelta(microseconds=micros)).astimezone(zone)
    except OverflowError:
        return None


def truncate(value: float) -> int | None:
    """Towards zero; None outside 64 bits."""
    return whole(math.trunc(value))


def int_of(text: str) -> int | None:
    """The whole number that a text is, or that its number is cut to; None for any other text."""
    stripped = text.strip(BLANKS)
    if _INT_TEXT.fullmatch(stripped):
        return whole(int(stripped)) if len(stripped) < 64 else None
    number = float_of(text)
    return None if number is None else truncate(number)


def float_of(text: str) -> float | None:
    """The number that a text is; None for any other text."""
    stripped = text.strip(BLANKS)
    return finite(float(stripped)) if _FLOAT_TEXT.fullmatch(stripped) else None

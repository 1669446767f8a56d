"""Single values on the server: 64-bit whole numbers, finite floats, numbers in text."""

from __future__ import annotations

import math
import re

from cumulant.features.definition.dtypes import BLANKS, FLOAT_TEXT, INT_TEXT

DAY = 86_400_000_000
_INT_TEXT, _FLOAT_TEXT = re.compile(INT_TEXT), re.compile(FLOAT_TEXT)


def finite(value: float) -> float | None:
    """`value`, None where it is NaN or infinite."""
    return value if math.isfinite(value) else None


def whole(value: int) -> int | None:
    """`value`, None where it does not fit 64 bits."""
    return value if -(2**63) <= value < 2**63 else None


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

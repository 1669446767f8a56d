"""The verdicts of a comparison."""

from __future__ import annotations

import math
from typing import Literal

Word = Literal["better", "worse", "not_worse", "cannot_tell"]


def verdict(low: float | None, high: float | None, *, margin: float = 0.0) -> Word:
    """The verdict on a difference known to lie in [low, high], oriented so that larger is better.

    Tested in this order: `better` (low above 0), `worse` (high below minus `margin`), `not_worse` (low above
    minus `margin`), else `cannot_tell`. A bound that is missing or NaN proves nothing.

    Raises:
        ValueError: `margin` is negative.
    """
    if margin < 0:
        raise ValueError(f"a margin is how much worse is accepted and cannot be negative: {margin}")
    lower = -math.inf if low is None or math.isnan(low) else low
    upper = math.inf if high is None or math.isnan(high) else high
    if lower > 0:
        return "better"
    if upper < -margin:
        return "worse"
    if lower > -margin:
        return "not_worse"
    return "cannot_tell"

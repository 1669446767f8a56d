"""Served features against the history: equal, explained by rows that had not arrived, or neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

#: differences that the order of additions leaves: relative, and absolute where numbers cancel
_TOLERANCE, _CANCELLED = 1e-9, 1e-12
#: of the interval of a rate
CONFIDENCE = 0.95


class FeatureComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A feature in the rows that were compared. `late`: it differs, and is what the rows that had arrived by then give;
    `mismatches`: it is neither; `rate`, with its 95% interval (Clopper and Pearson): of the mismatches.
    """

    feature: str
    rows: int
    late: int
    mismatches: int
    rate: float
    low: float
    high: float


class FeatureMismatch(msgspec.Struct, frozen=True, kw_only=True):
    """A served value that the history does not give: of which request, what was served and what the history gives."""

    feature: str
    version: str
    id: str
    row: int
    served: Any
    expected: Any


def is_equal(served: Any, expected: Any) -> bool:
    """Whether two values in JSON are the same feature."""
    if isinstance(served, bool) or isinstance(expected, bool):
        return served is expected
    if isinstance(served, int) and isinstance(expected, int):  # identifiers too
        return served == expected
    if isinstance(served, (int, float)) and isinstance(expected, (int, float)):
        return math.isclose(served, expected, rel_tol=_TOLERANCE, abs_tol=_CANCELLED)
    return bool(served == expected)


def differing(served: Mapping[str, Any], expected: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The features that differ. One that was not logged is not compared."""
    return [name for name in names if name in served and not is_equal(served[name], expected[name])]


def comparison(feature: str, *, rows: int, late: int, mismatches: int) -> FeatureComparison:
    """The figures of a feature."""
    low, high = _interval(mismatches, rows)
    rate = mismatches / rows if rows else 0.0
    return FeatureComparison(
        feature=feature, rows=rows, late=late, mismatches=mismatches, rate=rate, low=low, high=high
    )


def _interval(count: int, rows: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, rows - count + 1, tail))
    high = 1.0 if count == rows else float(betaincinv(count + 1, rows - count, 1 - tail))
    return low, high

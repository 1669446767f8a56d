"""An estimate with its interval, as it is recorded. Importing this loads no numpy."""

from __future__ import annotations

from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval at `level`; None where it is not defined on these rows."""

    value: float | None
    low: float | None = None
    high: float | None = None
    clusters: int = 0
    level: float = LEVEL

"""Histograms of observations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

#: upper bounds in seconds
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
#: of stored features, from a second to 30 days
AGES = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 172_800.0, 604_800.0, 2_592_000.0)
ROWS = tuple(float(2**step) for step in range(11))


class Histogram:
    """Histogram: `counts[k]` are the observations up to `bounds[k]`, the last those above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> int:
        """The bucket that counts it."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        return bucket

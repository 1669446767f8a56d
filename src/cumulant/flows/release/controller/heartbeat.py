"""Whether the loop of a process makes progress."""

from __future__ import annotations

import time
from collections.abc import Callable

#: seconds without a beat after which a loop counts as hung: four times the longest pause after a failure
MOST = 120.0
#: the same of a phase of a release's start, which evaluates versions or computes features
LONG_STEP = 600.0


class Heartbeat:
    """The loop calls `beat` at each of its steps; any thread may ask whether it does."""

    def __init__(self, most: float = MOST, *, steady: Callable[[], float] = time.monotonic) -> None:
        """`most`: seconds that may pass between two beats."""
        self._most, self._steady = most, steady
        self._until: float | None = None

    def beat(self, most: float = 0.0) -> None:
        """A step begins, which may take `most` seconds where that is more than usual."""
        self._until = self._steady() + max(most, self._most)

    def is_fresh(self) -> bool:
        """Whether the loop has begun, and its step takes no longer than it may."""
        return self._until is not None and self._steady() <= self._until

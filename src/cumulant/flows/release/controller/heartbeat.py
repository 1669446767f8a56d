"""Whether the loop of a process makes progress."""

from __future__ import annotations

import time
from collections.abc import Callable

#: seconds without a beat after which a loop counts as hung: four times the longest pause after a failure
MOST = 120.0


class Heartbeat:
    """The loop calls `beat` at each of its steps; any thread may ask whether it does."""

    def __init__(self, most: float = MOST, *, steady: Callable[[], float] = time.monotonic) -> None:
        """`most`: seconds that may pass between two beats."""
        self._most, self._steady = most, steady
        self._last: float | None = None

    def beat(self) -> None:
        self._last = self._steady()

    def is_fresh(self) -> bool:
        """Whether the loop has begun and its last step is recent."""
        return self._last is not None and self._steady() - self._last <= self._most

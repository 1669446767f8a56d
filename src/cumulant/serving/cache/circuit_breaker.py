"""Circuit breaker with exponential back-off."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

#: failures in a row that open it
_MOST = 5
#: seconds until the first and until the latest try
_FIRST, _LONGEST = 0.1, 30.0
#: after a rest of so many times the last delay, a failure counts as the first again
_CALM = 10


class CircuitBreaker:
    """Closed: calls pass. Open: no calls until `wait` is over, then one; each failure doubles the wait."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self.closed = True
        self._clock, self._chance = clock, chance
        self._row = 0
        self._delay = 0.0
        self._closed_at = self._until = clock()

    def succeed(self) -> None:
        self._row = 0
        if not self.closed:
            self.closed, self._closed_at = True, self._clock()

    def fail(self) -> None:
        """Count a failure of a closed breaker, which may open it."""
        self._row += 1
        if self.closed and self._row >= _MOST:
            self.trip()

    def trip(self) -> None:
        """Open, or stay open for longer."""
        now = self._clock()
        calm = self.closed and now - self._closed_at > _CALM * self._delay
        self._delay = _FIRST if calm or not self._delay else min(2 * self._delay, _LONGEST)
        # Servers that lost the same store must not all come back at the same moment.
        self._until = now + self._delay * (0.5 + self._chance())
        self.closed = False

    def wait(self) -> float:
        """Seconds until the next try."""
        return 0.0 if self.closed else max(0.0, self._until - self._clock())

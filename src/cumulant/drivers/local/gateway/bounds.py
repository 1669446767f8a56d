"""What bounds the requests of an arm and of a model: places, a rate, a budget of retries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from cumulant.core.traffic import Limits
from cumulant.drivers.local.gateway.messages import Fault

#: retries at once that are always allowed, so that a quiet model can be rescued too
_FEW = 3


class Gate:
    """So many requests of an arm at once; others wait in line, and beyond that line there is no place."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.inside = 0
        self._line: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Raises: Fault `overflow`: the line is full."""
        if self.inside < self.limits.connections and not self._line:
            self.inside += 1
            return
        if len(self._line) >= self.limits.pending:
            raise Fault("overflow", 503, "more requests are under way than this model takes at once")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()  # it was let in at the moment it gave up
            else:
                with contextlib.suppress(ValueError):  # `leave` may have passed over it already
                    self._line.remove(place)
            raise

    def leave(self) -> None:
        self.inside -= 1
        while self._line and self.inside < self.limits.connections:
            place = self._line.popleft()
            if not place.done():
                self.inside += 1
                place.set_result(None)


class Bucket:
    """Requests a second: as many at once as in one second, filled again steadily."""

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self._tokens, self._at = float(rate or 0), time.perf_counter()

    def take(self) -> bool:
        if self.rate is None:
            return True
        now = time.perf_counter()
        self._tokens = min(float(self.rate), self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Retries:
    """How many requests are tried again at once, as a share of those under way."""

    def __init__(self) -> None:
        self.now = 0

    def allowed(self, active: int, percent: float) -> bool:
        return self.now < max(_FEW, active * percent / 100)

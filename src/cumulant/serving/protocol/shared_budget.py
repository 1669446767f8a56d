"""Budget that several tasks share in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedBudget:
    """Budget of `most` units on one event loop; a larger request waits until nothing else is taken."""

    def __init__(self, most: int) -> None:
        self._most, self.used = most, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def part(self, size: int) -> AsyncIterator[None]:
        """Take `size` units, once they are available, behind earlier requests."""
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.used += size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)
            else:
                self._next()
            raise

    def _give(self, size: int) -> None:
        self.used -= size
        self._next()

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self._most

    def _next(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)

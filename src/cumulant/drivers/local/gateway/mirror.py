"""Copies of the champion's requests for the candidate: sent when nobody waits, thrown away when there are too many."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from cumulant.drivers.local.gateway.counts import Counts
from cumulant.drivers.local.gateway.messages import Fault, with_headers
from cumulant.drivers.local.gateway.upstream import Endpoint

_AT_ONCE = 64
_WAITING = 1024
_WAITING_BYTES = 64 * 1024 * 1024
#: larger bodies are not kept to be sent twice
LARGEST = 1024 * 1024


class Copy(msgspec.Struct, frozen=True):
    """A request as it goes over the wire, but for the server's token; with the time that it may take (seconds)."""

    model: str
    endpoints: tuple[Endpoint, ...]
    message: bytes
    deadline: float
    bare: bool


class Mirror:
    """Sends copies in the background."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._line: deque[Copy] = deque()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, copy: Copy) -> None:
        """Send it some time; never waits."""
        if len(self._line) >= _WAITING or self._bytes + len(copy.message) > _WAITING_BYTES:
            self.dropped(copy.model)
            return
        self._line.append(copy)
        self._bytes += len(copy.message)
        if len(self._tasks) < _AT_ONCE:
            task = asyncio.ensure_future(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def dropped(self, model: str) -> None:
        """A copy was not sent."""
        self._counts.add("mirror_dropped", model)

    async def _work(self) -> None:
        while self._line:
            copy = self._line.popleft()
            self._bytes -= len(copy.message)
            try:
                async with asyncio.timeout(copy.deadline):
                    await self._send(copy)
            except (Fault, TimeoutError):
                self._counts.add("mirror_failed", copy.model)
            else:
                self._counts.add("mirrored", copy.model)

    async def _send(self, copy: Copy) -> None:
        endpoint = min(copy.endpoints, key=lambda one: (not one.usable, one.active))
        wire = await endpoint.wire()
        try:
            wire.begin(bare=copy.bare)
            wire.write(with_headers(copy.message, endpoint.headers))
            await wire.head  # type: ignore[misc]  # `begin` made it
            while await wire.body.read():
                pass
        finally:
            endpoint.give_back(wire)

    async def drain(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=patience)
        for task in tuple(self._tasks):
            task.cancel()

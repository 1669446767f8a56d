"""Listening sockets of all workers.

Each worker accepts connections on its own socket. The socket of a worker that has ended is served by the others until
that worker is restarted, so that no waiting connection is lost.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence

from cumulant.core.network.accepting import take_connections
from cumulant.serving.sockets import BACKLOG


class Listeners:
    """Listening sockets; `own` is the index of this worker's. All are closed together."""

    def __init__(self, listeners: Sequence[socket.socket], own: int = 0) -> None:
        self._listeners, self._own = list(listeners), own
        self._servers: dict[int, asyncio.Server] = {}
        self._protocol: Callable[[], asyncio.BaseProtocol] | None = None
        self._turn = asyncio.Lock()

    async def open(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept connections on this worker's own socket."""
        self._protocol = protocol
        await self.take_over(())

    async def take_over(self, orphans: Collection[int]) -> None:
        """Accept connections on these sockets too, and on no others."""
        async with self._turn:
            if self._protocol is None:
                return  # not ready, or at its end
            for place in self._servers.keys() - {self._own, *orphans}:
                self._servers.pop(place).close()
            for place in sorted({self._own, *orphans} - self._servers.keys()):
                await self._take(place)

    async def _take(self, place: int) -> None:
        if (protocol := self._protocol) is None:
            return  # it ended in the meantime
        # A copy, as closing the server closes what it was given.
        listener = self._listeners[place].dup()
        self._servers[place] = await take_connections(protocol, listener, backlog=BACKLOG)
        if self._protocol is None:  # closed in the meantime
            self.close()

    def close(self) -> None:
        """Accept no more connections."""
        self._protocol = None
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for listener in self._listeners:
            listener.close()

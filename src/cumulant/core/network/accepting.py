"""The connections of a listening socket are taken as they come, many at a time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

#: connections that are taken before those that are open are read again
_AT_ONCE = 128
#: seconds between two that a server takes, up to which no other waits for long
_QUICK = 0.001


async def take_connections(
    protocol: Callable[[], asyncio.BaseProtocol],
    listener: socket.socket,
    *,
    backlog: int,
) -> asyncio.Server:
    """Take connections from a bound socket, each to be handled by one `protocol`.

    Args:
        protocol: makes what handles a connection.
        listener: not blocking; it is closed with what is returned.
        backlog: connections that may wait to be taken.
    """
    loop = asyncio.get_running_loop()
    # Servers of asyncio's own loops take as many connections at a time as wait.
    if not isinstance(loop, asyncio.BaseEventLoop):
        protocol = _TakingMore(loop, protocol, listener)
    return await loop.create_server(protocol, sock=listener, backlog=backlog)


class _TakingMore:
    """For uvloop, whose servers take one connection each time that the loop has read and answered what came
    (libuv's pull request 3696): where that takes 5 ms, the last of a thousand new connections waits for 5 s. The others
    that wait are taken after one, unless the server takes them quickly, at two thirds of the cost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], asyncio.BaseProtocol],
        listener: socket.socket,
    ) -> None:
        self._loop, self._protocol, self._listener = loop, protocol, listener
        self._due, self._last = False, float("-inf")
        self._tasks: set[asyncio.Task[object]] = set()

    def __call__(self) -> asyncio.BaseProtocol:
        now = time.perf_counter()
        if now - self._last > _QUICK and not self._due:
            self._due = True
            self._loop.call_soon(self._take)
        self._last = now
        return self._protocol()

    def _take(self) -> None:
        self._due = False
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # none waits, or the server was closed; of all else the server hears
                return
            connection.setblocking(False)  # noqa: FBT003 - the socket's own name for it
            opened = self._loop.connect_accepted_socket(self._protocol, connection)
            task: asyncio.Task[object] = self._loop.create_task(opened)
            self._tasks.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, OSError):  # the client's, or the network's
            self._loop.call_exception_handler({"message": "a connection could not be opened", "exception": error})

"""The connections of one listening socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from cumulant.serving.http.connection import SWEEP, HttpConnection
from cumulant.serving.http.limits import HttpLimits
from cumulant.serving.http.messages import Headers, Request, Response
from cumulant.serving.http.overload import Turns
from cumulant.serving.http.refusals import Refusals

Handler = Callable[[Request], Response | Awaitable[Response]]
#: by path and headers, whether a request's body is to be read at all; the handler refuses it otherwise
Admitted = Callable[[bytes, Headers], bool]


class HttpSite:
    """The connections of one listening socket and their handler; `urgent` paths skip the queue."""

    def __init__(
        self,
        handle: Handler,
        limits: HttpLimits,
        admitted: Admitted | None = None,
        refusals: Refusals | None = None,
        *,
        urgent: Callable[[bytes], object] = lambda _: False,
        turns: Turns | None = None,
    ) -> None:
        self.handle = handle
        self.admitted = admitted
        self.limits = limits
        self.refusals = refusals or Refusals()
        self.urgent = urgent
        self.turns = Turns(limits.turn, limits.queue) if turns is None else turns
        self.connections: set[HttpConnection] = set()
        #: bytes of bodies that are not whole yet, or wait behind others
        self.body_bytes = 0
        #: bytes that the heads of requests take which wait
        self.head_bytes = 0
        self.draining = False
        self._empty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> HttpConnection:
        return HttpConnection(self)

    def start(self) -> None:
        """Start to close connections that are slow or idle for too long."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def remove(self, connection: HttpConnection) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._empty.set()

    def _sweep(self) -> None:
        now = time.perf_counter()
        for connection in tuple(self.connections):
            connection.expire(now)
        self.refusals.flush()
        self.start()

    async def drain(self, patience: float) -> None:
        """Answer accepted requests for at most `patience` seconds, then close every connection."""
        self.draining = True
        deadline = time.perf_counter() + patience
        for connection in tuple(self.connections):
            connection.finish()
        if self.connections:
            await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=deadline - time.perf_counter())
        for connection in tuple(self.connections):
            connection.abort()
        self.refusals.flush(every=True)
        if self._timer is not None:
            self._timer.cancel()

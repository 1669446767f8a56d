"""The connections of one listening socket."""

from __future__ import annotations

import asyncio
import time

from cumulant.serving.http.connection import SWEEP, HttpConnection
from cumulant.serving.http.site_state import SiteState


class HttpSite(SiteState[HttpConnection]):
    """The connections of one listening socket and their handler."""

    _timer: asyncio.TimerHandle | None = None

    def __call__(self) -> HttpConnection:
        return HttpConnection(self)

    def start(self) -> None:
        """Start to close connections that are slow or idle for too long."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

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
            await asyncio.wait([asyncio.ensure_future(self.empty.wait())], timeout=deadline - time.perf_counter())
        for connection in tuple(self.connections):
            connection.abort()
        self.refusals.flush(every=True)
        if self._timer is not None:
            self._timer.cancel()

"""Connections of the API's server: a request has to arrive in time, and the end of the server ends its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from types import FrameType

    from starlette.applications import Starlette

#: seconds in which a request has to arrive as a whole, from the connection or the response before it
ARRIVAL_SECONDS = 30.0
#: a body goes on to arrive where so many bytes came in that time, and has so many seconds in all
PROGRESS, _BODY_SECONDS = 64 << 10, 600.0
#: seconds for requests under way at the end
_DRAIN = 10
#: connections that are answered at once; others get 503
_MOST_CONNECTIONS = 1_000


class TimedConnection(H11Protocol):
    """Closes a connection on which no whole request has arrived in time: those that send nothing, or a byte at a time,
    would keep all others from being answered. A large body has more time, as long as it goes on. h11 bounds the size of
    heads, which httptools does not.
    """

    _timer: asyncio.TimerHandle | None = None
    #: bytes since the timer was set, and when the first one was
    _received, _since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop()
        elif self._timer is None:
            self._since = self.loop.time()
            self._set_timer()

    def _set_timer(self) -> None:
        self._received = 0
        self._timer = self.loop.call_later(ARRIVAL_SECONDS, self.end_wait)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end_wait(self) -> None:
        """Close the connection, or wait once more for the rest of a body."""
        self._stop()
        goes_on = self._received >= PROGRESS and self.loop.time() - self._since < _BODY_SECONDS
        if self.conn.their_state is h11.SEND_BODY and goes_on:
            self._set_timer()
        else:
            self.transport.close()


class ApiServer(uvicorn.Server):
    """`end` is called on the event loop when the server is asked to end, before it waits for requests under way."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)


def server_of(application: Starlette) -> ApiServer:
    """A server of the application, which ends its streams first."""
    config = uvicorn.Config(
        application,
        http=TimedConnection,
        ws="none",
        log_config=None,
        log_level="critical",  # errors are logged under the number that the caller is given
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=int(ARRIVAL_SECONDS),
        timeout_graceful_shutdown=_DRAIN,
    )
    return ApiServer(config, application.state.feeds.close)

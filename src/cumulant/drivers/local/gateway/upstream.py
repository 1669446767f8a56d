"""Connections to the servers of an arm: one answer at a time, kept for the next request where both sides allow."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import httptools

from cumulant.core.traffic import TOKEN_HEADER
from cumulant.drivers.local.gateway.messages import Body, Fault, Header, Valve

_TOKEN = TOKEN_HEADER.encode()
_CONNECT = 1.0
#: below what servers usually keep an idle connection for, so that it is not they who end it
_IDLE = 4.0
_HEAD = 256 * 1024


class Answer:
    """The head of a server's answer."""

    __slots__ = ("chunked", "headers", "length", "reason", "status")

    def __init__(self) -> None:
        self.status, self.reason = 0, b""
        self.headers: list[Header] = []
        #: of the body, where the server says it
        self.length: int | None = None
        self.chunked = False


class Wire(asyncio.Protocol):
    """One connection to a server."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._valve = Valve()
        self._answer = Answer()
        self._bare = self._busy = self._complete = self._reusable = False
        self._size = 0
        self.head: asyncio.Future[Answer] | None = None
        self.body = Body(self._pause, self._resume)
        self.idle_since = 0.0

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._valve.set(to=True)
        answer = self._answer
        if exc is None and self._begun() and answer.length is None and not answer.chunked:
            self._complete = True
            self.body.end()  # such an answer ends with its connection
        self.fail(Fault("reset", 503, "the server ended the connection before its answer was whole"))

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._complete:
            self.close()  # nobody asked
            return
        self._size += len(data)
        if self._size > _HEAD + len(data) * self._begun():
            self._broken()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken()

    def pause_writing(self) -> None:
        self._valve.set(to=False)

    def resume_writing(self) -> None:
        self._valve.set(to=True)

    def _pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _begun(self) -> bool:
        return self.head is not None and self.head.done() and not self.head.cancelled() and not self.head.exception()

    def _broken(self) -> None:
        self.fail(Fault("reset", 503, "the answer of the server is no valid HTTP"))
        self.close()

    def fail(self, error: Exception) -> None:
        """The answer does not come, or not whole."""
        self._reusable = False
        if self.head is not None and not self.head.done():
            self.head.set_exception(error)
            self.head.exception()  # whoever gave up waiting need not be told
        self.body.fail(error)

    # --- what the parser calls

    def on_message_begin(self) -> None:
        if self._complete:
            self._reusable = False
        self._answer = Answer()

    def on_status(self, reason: bytes) -> None:
        self._answer.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete and not self._begun():  # trailers are nobody's
            self._answer.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        answer = self._answer
        answer.status = self._parser.get_status_code()
        if self._complete or 100 <= answer.status < 200:
            return
        lengths = {value for name, value in answer.headers if name == b"content-length"}
        answer.chunked = any(name == b"transfer-encoding" for name, _ in answer.headers)
        bad = (
            len(lengths) > 1
            or not 200 <= answer.status <= 999
            or any(b"\n" in v or b"\r" in v for _, v in answer.headers)
        )
        if bad or (lengths and answer.chunked):
            self._broken()
            return
        text = next(iter(lengths), b"")
        answer.length = int(text) if text.isdigit() and len(text) < 19 else None
        if self.head is not None and not self.head.done():
            self.head.set_result(answer)
        if self._bare:
            self._complete = True
            self.body.end()

    def on_body(self, body: bytes) -> None:
        self._size = 0
        if not self._complete:
            self.body.feed(body)

    def on_message_complete(self) -> None:
        if self._complete or 100 <= self._answer.status < 200:
            return
        self._complete = True
        self._reusable = self._parser.should_keep_alive() and not self._bare
        self.body.end()

    # --- what the gateway asks

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the next request may go over it."""
        return self._complete and self._reusable and not self.closing

    def begin(self, *, bare: bool) -> None:
        """A request goes out; `bare`: its answer has no body (HEAD)."""
        self.head = asyncio.get_running_loop().create_future()
        self.body = Body(self._pause, self._resume)
        self._reusable = False
        self._answer, self._bare, self._busy, self._complete, self._size = Answer(), bare, True, False, 0

    def rest(self) -> None:
        """It waits for the next request."""
        self._busy, self.idle_since = False, time.perf_counter()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def writable(self) -> None:
        if not self._valve.open:
            await self._valve.wait()

    def close(self) -> None:
        self._transport.abort()


class Endpoint:
    """One server: its kept connections, and what is thought of it."""

    def __init__(self, url: str, *, trust: str | None = None, kept: bool = True, token: bytes = b"") -> None:
        parts = urlsplit(url)
        self.url = url
        #: of the head of each request that it is sent
        self.headers: tuple[Header, ...] = ((_TOKEN, token),) if token else ()
        #: file of the authorities that its certificate is verified against; None: the system's
        self.trust = trust
        self._context: ssl.SSLContext | None = None
        #: whether connections wait for later requests
        self._kept = kept
        self._host, self._secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self.authority = parts.netloc.encode()
        self._idle: deque[Wire] = deque()
        #: as the last health check found; None before the first
        self.ready: bool | None = None
        #: it took no connection since
        self.refused = False
        self._ejected_until, self._ejections, self._failures = 0.0, 0, 0
        #: requests under way, mirrored ones apart
        self.active = 0

    @property
    def ejected(self) -> bool:
        return time.perf_counter() < self._ejected_until

    @property
    def usable(self) -> bool:
        """Whether it should get requests, where there is a choice."""
        return self.ready is not False and not self.refused and not self.ejected

    async def wire(self) -> Wire:
        """A connection over which nothing is under way.

        Raises:
            Fault: there is none to be had. Nothing was sent.
        """
        self.trim()
        while self._idle:
            wire = self._idle.pop()
            if not wire.closing:
                return wire
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT):
                _, wire = await loop.create_connection(Wire, self._host, self._port, ssl=self._encrypted())
        except (OSError, TimeoutError) as error:
            raise Fault("connect", 503, "no server of this model takes connections") from error
        return wire

    def _encrypted(self) -> ssl.SSLContext | None:
        """How its certificate is verified; None where it is asked in plain.

        Raises:
            OSError: the file of its authorities cannot be used.
        """
        if self._secure and self._context is None:
            self._context = ssl.create_default_context(cafile=self.trust)
        return self._context

    def give_back(self, wire: Wire) -> None:
        """Keep it for the next request, or end it."""
        if wire.reusable and self._kept:
            wire.rest()
            self._idle.append(wire)
        else:
            wire.close()

    def trim(self) -> None:
        """End the connections that were idle for long."""
        oldest = time.perf_counter() - _IDLE
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().close()

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, limit: int, seconds: float) -> bool:
        """Whether this failure was the one by which it is left alone: `limit` in a row, for longer each time."""
        self._failures += 1
        if self._failures < limit or self.ejected:
            return False
        self._failures = 0
        self._ejections += 1
        self._ejected_until = time.perf_counter() + seconds * min(self._ejections, 10)
        return True

    def close(self) -> None:
        """End what is idle, and later what is under way."""
        self._kept = False
        while self._idle:
            self._idle.pop().close()

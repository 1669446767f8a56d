"""Connections of callers: requests parsed by httptools and handled one after the other, bounded in bytes and time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import httptools
import msgspec

from cumulant.drivers.local.gateway.messages import Body, Fault, Header, Valve, error_body, small_answer

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: one read of the socket, which may bring the end of one request and the head of the next
_SLACK = 256 * 1024
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})
#: after a refusal, for the caller to read it before the connection is reset
_LINGER = 0.5
_SWEEP = 0.5


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    target: int = 8 * 1024
    headers: int = 64 * 1024
    header_count: int = 128
    #: for the head of a request to come whole
    head: float = 10.0
    #: for each `portion` of a body to come, or its end
    stall: float = 30.0
    portion: int = 16 * 1024
    idle: float = 75.0
    #: requests of one connection that wait for the one before
    waiting: int = 16
    connections: int = 16_384


class Incoming:
    """A request whose head came; its body may still be on its way."""

    __slots__ = ("body", "client", "expects", "headers", "keep", "length", "method", "old", "target")

    def __init__(self, *, method: bytes, target: bytes, headers: list[Header], body: Body, client: str) -> None:
        self.method, self.target, self.headers, self.body, self.client = method, target, headers, body, client
        #: of the body; None where it comes in chunks
        self.length: int | None = 0
        self.keep = True
        #: HTTP/1.0, which knows no chunks
        self.old = False
        #: the caller waits to be told to send the body
        self.expects = False

    def header(self, name: bytes) -> bytes | None:
        return next((value for known, value in self.headers if known == name), None)


class Refusal(msgspec.Struct, frozen=True):
    """What is answered to something that is no request; the connection ends by it."""

    status: int
    text: str


Handler = Callable[[Incoming, "Connection"], Awaitable[bool]]


class Site:
    """The connections of one listening socket. `handle` answers a request, and says whether its connection goes on."""

    def __init__(self, handle: Handler, bounds: Bounds | None = None) -> None:
        self.handle, self.bounds = handle, bounds or Bounds()
        self.connections: set[Connection] = set()
        self.draining = False
        #: requests that were none, and connections that were too slow or too many
        self.refused: dict[str, int] = {}
        self._empty = asyncio.Event()

    def __call__(self) -> Connection:
        return Connection(self)

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._empty.set()

    async def sweep(self) -> None:
        """End what is slow or idle, for ever."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.perf_counter()
            for connection in tuple(self.connections):
                connection.expire(now)

    async def drain(self, patience: float) -> None:
        """Answer what came, for at most `patience` seconds, then end every connection."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.finish_if_idle()
        if self.connections:
            await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=patience)
        for connection in tuple(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    """Requests in, answers out, in the order of the requests."""

    def __init__(self, site: Site) -> None:
        self._site, self._bounds = site, site.bounds
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None]
        self._queue: deque[Incoming | Refusal] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._current: Incoming | None = None
        self._body: Body | None = None
        self._client = ""
        self._in_head, self._fed, self._ending, self._pauses, self._portion = False, 0, False, 0, 0
        self._valve = Valve()
        self._since = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._size = 0
        self._refusal: Refusal | None = None

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._task = asyncio.ensure_future(self._serve())
        self._site.connections.add(self)
        if self._site.draining or len(self._site.connections) > self._bounds.connections:
            self._site.refuse("connections")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._body is not None:
            self._body.fail(Fault("", 499, "the caller went away"))
        self._valve.set(to=True)
        self._task.cancel()
        self._site.gone(self)

    def eof_received(self) -> bool:
        # A caller that closed looks like one that closed halfway, which callers of HTTP do not do: it is gone.
        return False

    def pause_writing(self) -> None:
        self._valve.set(to=False)

    def resume_writing(self) -> None:
        self._valve.set(to=True)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self._stamp()
        # The parser keeps a header (or a trailer) that does not end; only counting what is fed bounds it.
        self._fed += len(data)
        if self._fed > self._bounds.headers + self._bounds.target + _SLACK:
            self._fail(431, "the headers are too many or too long")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._fail(400, "this is no valid HTTP request")

    def _stamp(self) -> None:
        """A head has its time from its first byte on."""
        if self._body is None and not self._in_head:
            self._since, self._in_head = time.perf_counter(), True

    def _decline(self, rest: bytes) -> None:
        """Another protocol is offered beside the request, at which the parser stops: it is read again without that."""
        if self._ending:
            return
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._fail(400, "this gateway opens no tunnels")
            return
        kept = [(name, value) for name, value in self._headers if name not in _OFFER]
        lines = [b"%b %b HTTP/1.1" % (method, self._target), *(b"%b: %b" % pair for pair in kept), b""]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((*lines, rest)))

    # --- what the parser calls

    def on_message_begin(self) -> None:
        self._clear()

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._bounds.target:
            self._refuse(414, f"the path is longer than {self._bounds.target} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._body is not None:
            return  # a trailer: nobody asked for it
        if self._size > self._bounds.headers or len(self._headers) >= self._bounds.header_count:
            self._refuse(431, "the headers are too many or too long")
        elif b"\r" in value or b"\n" in value or b"\0" in value:
            self._refuse(400, "a header holds a line break")
        else:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._fed, self._in_head = 0, False
        if self._refusal is None:
            self._check()
        if self._refusal is not None:
            self._fail(self._refusal.status, self._refusal.text)
        elif not self._ending and not self._parser.should_upgrade():
            self._begin()

    def _check(self) -> None:
        """Refuse what two servers could read in two ways."""
        lengths = [value for name, value in self._headers if name == b"content-length"]
        codings = [value.strip().lower() for name, value in self._headers if name == b"transfer-encoding"]
        hosts = sum(name == b"host" for name, _ in self._headers)
        new = self._parser.get_http_version() == "1.1"
        if len(lengths) > 1 or (lengths and (codings or not lengths[0].isdigit() or len(lengths[0]) > 18)):
            self._refuse(400, "the length of the body is given in two ways, or is no number")
        elif codings and (codings != [b"chunked"] or not new):
            self._refuse(400, "only the transfer coding chunked of HTTP/1.1 is taken")
        elif hosts > 1 or (new and not hosts):
            self._refuse(400, "a request has exactly one Host")

    def _begin(self) -> None:
        request = Incoming(
            method=self._parser.get_method(),
            target=self._target,
            headers=self._headers,
            body=Body(self._pause, self._resume),
            client=self._client,
        )
        request.keep = self._parser.should_keep_alive()
        request.old = self._parser.get_http_version() != "1.1"
        request.expects = request.header(b"expect") is not None and not request.old
        if request.header(b"transfer-encoding") is not None:
            request.length = None
        else:
            request.length = int(request.header(b"content-length") or 0)
        self._body, self._portion, self._since = request.body, 0, time.perf_counter()
        self._put(request)

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        if self._body is None:
            return
        self._body.feed(body)
        self._portion += len(body)
        if self._portion >= self._bounds.portion:
            self._portion, self._since = 0, time.perf_counter()

    def on_message_complete(self) -> None:
        if self._body is not None:
            self._body.end()
        self._body = None
        self._fed, self._in_head, self._since = 0, False, time.perf_counter()

    # --- reading and its bounds

    def _put(self, item: Incoming | Refusal) -> None:
        self._queue.append(item)
        if len(self._queue) == self._bounds.waiting + 1:
            self._pause()
        self._rouse()

    def _take(self) -> Incoming | Refusal:
        if len(self._queue) == self._bounds.waiting + 1:
            self._resume()
        return self._queue.popleft()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and not self._transport.is_closing():
            self._since = time.perf_counter()
            self._transport.resume_reading()

    def _refuse(self, status: int, text: str) -> None:
        if self._refusal is None:
            self._refusal = Refusal(status, text)

    def _fail(self, status: int, text: str) -> None:
        """Nothing more is read; what came before is answered first."""
        if self._ending:
            return
        self._ending = True
        self._site.refuse(str(status))
        if self._body is not None:
            self._body.fail(Fault("", status, text))
        else:
            self._put(Refusal(status, text))

    def expire(self, now: float) -> None:
        """End what takes too long."""
        waited = now - self._since
        if self._body is not None:
            if waited > self._bounds.stall and not self._pauses:
                self._site.refuse("stalled")
                self._body.fail(Fault("", 408, "the body does not come"))
                self._body, self._ending = None, True
        elif self._in_head and waited > self._bounds.head:
            self._fail(408, "the request does not come whole")
        elif self._current is None and not self._queue and waited > self._bounds.idle:
            self._transport.close()

    # --- answers

    async def _serve(self) -> None:
        while self._queue or not self._ending:
            if not self._queue:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                continue
            item = self._take()
            if isinstance(item, Refusal):
                self.write(small_answer(item.status, error_body(item.status, item.text), close=True))
                break
            self._current = item
            keep = await self._site.handle(item, self)
            self._current = None
            self._since = max(self._since, time.perf_counter()) if not self._in_head else self._since
            if not keep or self.last(item) or not item.body.ended:
                break
            item.body.rest()
        self._finish()

    def last(self, request: Incoming) -> bool:
        """Whether the connection ends with this request."""
        return not request.keep or self._site.draining

    def cheer(self, request: Incoming) -> None:
        """Tell a caller who waits for it that the body may come."""
        if request.expects and not request.body.ended:
            request.expects = False
            self.write(_CONTINUE)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def writable(self) -> None:
        if not self._valve.open:
            await self._valve.wait()

    def abort(self) -> None:
        """End it where an answer cannot be completed, so that the caller sees that."""
        self._transport.abort()

    def finish_if_idle(self) -> None:
        if self._current is None and not self._queue and not self._in_head:
            self._transport.close()

    def _finish(self) -> None:
        self._ending = True
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            # Closed at once, unread bytes would reset the connection under the answer.
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER, self._transport.close)
        else:
            self._transport.close()

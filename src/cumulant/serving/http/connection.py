"""HTTP/1.1 connection: parsed by httptools, answered in order, bounded in bytes and time."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools

from cumulant.serving.http.connection_queue import RequestQueue
from cumulant.serving.http.kernel import count_unsent
from cumulant.serving.http.messages import Headers, Request, Response, error_response, head
from cumulant.serving.http.refusals import Reason
from cumulant.serving.http.site_state import SiteState

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: a body that was refused is read on and thrown away up to here, so that the connection stays usable
_PATIENCE = 64 * 1024 * 1024
#: seconds between two checks of a connection's timeouts
SWEEP = 1.0
#: headers that offer another protocol, and one that was answered already
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings", b"expect"})
#: one read of the socket, which may have the end of one request and the head of the next
_SLACK = 256 * 1024
#: bytes that a header takes beside its text
_PER_HEADER = 160
_HEADERS = "the headers are too many or too long"
_HOSTS = "a request must have exactly one header Host"
_CROWDED = "too many large requests come at once; try again"
#: made once: it is what is answered most under an overload
_BUSY = error_response(
    429, "the server has more to do than it can do in time; try again, or start more workers", ((b"retry-after", b"1"),)
)


class HttpConnection(asyncio.Protocol):
    """Requests in, responses out, in the order of the requests."""

    def __init__(self, site: SiteState[HttpConnection]) -> None:
        self._site, self._limits, self._handle = site, site.limits, site.handle
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._client = ""
        self._waiting = RequestQueue(site)
        self._task: asyncio.Task[Response] | None = None
        self._writable, self._ending, self._answered = True, False, False
        #: a request of this connection waits for its turn of `site.turns`; so much waits that no more is read
        self._queued, self._crowded = False, False
        #: bytes that came since the last part of a body, or the end of a head; of the body, those that the site counts
        self._in_head, self._fed, self._counted_bytes = True, 0, 0
        self._parts: list[bytes] | None
        self.on_message_begin()
        #: when the present request began or the last one ended
        self._receiving, self._since = False, time.perf_counter()
        #: bytes that the client has not taken yet, and since when that many
        self._unconfirmed, self._unconfirmed_since = 0, self._since

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._site.connections.add(self)
        if self._site.draining:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._release_body()
        self._site.remove(self)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        # The parser keeps a header or a trailer that does not end; only counting what is fed bounds it.
        self._fed += len(data)
        if self._fed > self._limits.headers + self._limits.target + _SLACK:
            self._fail("headers", 431, _HEADERS)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._fail("malformed", 400, "this is no valid HTTP request")
        else:
            if self._receiving and self._size != self._counted_bytes:
                self._count_body()

    def _count_body(self) -> None:
        """Count a received part of a body, and refuse it where all bodies together are too large."""
        if self._refusal is not None or self._rejected:
            self._release_body()  # what is thrown away takes no memory
            return
        self._site.body_bytes += self._size - self._counted_bytes
        self._counted_bytes = self._size
        if self._site.body_bytes > self._limits.bodies:
            self._release_body()
            self._refuse("crowded", 429, _CROWDED)

    def _release_body(self) -> None:
        self._site.body_bytes -= self._counted_bytes
        self._counted_bytes = 0
        self._body, self._parts = b"", None

    def _decline(self, rest: bytes) -> None:
        """Ignore the offer of another protocol, at which the parser stops: parse the request again without it."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._fail("malformed", 400, "this server is no proxy")
            return
        if self._refusal is not None:
            self._drop_or_queue(keep=False)
            return
        headers = {name: value for name, value in self._headers.items() if name not in _OFFER}
        lines = [b"%b %b HTTP/1.1" % (method, self._target), *(b"%b: %b" % pair for pair in headers.items()), b""]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((*lines, rest)))

    def eof_received(self) -> bool:
        # A half-closed client still gets the answers it waits for.
        return self._task is not None or bool(self._waiting)

    def pause_writing(self) -> None:
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable = True
        self._transport.resume_reading()
        self._next()

    # --- what the parser calls

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", cast("Headers", {}), b""
        self._parts = None
        self._size = self._header_bytes = self._header_count = 0
        self._refusal: Response | None = None
        self._answered = self._rejected = False
        self._in_head, self._receiving, self._since = True, True, time.perf_counter()

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._limits.target:
            self._refuse("target", 414, f"the path is longer than {self._limits.target} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        self._header_count += 1
        if self._header_bytes > self._limits.headers or self._header_count > self._limits.header_count:
            self._refuse("headers", 431, _HEADERS)
            return
        if not self._in_head:
            return  # a trailer: it comes too late to change how the request is read
        name = name.lower()
        if name in self._headers and name == b"host":
            self._refuse("host", 400, _HOSTS)
        self._headers.setdefault(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._fed = False, 0
        if b"host" not in self._headers and self._parser.get_http_version() == "1.1":
            self._refuse("host", 400, _HOSTS)
        # A client that waits for leave to send its body may never send it: what came next would be read as the body
        awaits = b"expect" in self._headers
        if self._refusal is not None:
            if self._answered and awaits:
                self._end()
            return
        length = self._headers.get(b"content-length")
        if self._site.admitted is not None and not self._site.admitted(self._target, self._headers):
            self._reject_head(int(length or 0))
        elif length is not None and int(length) > self._limits.body:
            self._too_large(int(length), close=awaits)
        elif self._site.turns.line and not (self._task or self._waiting) and self._is_late():
            self._site.refusals.add("busy", 429, self._client)
            self._refuse_with(_BUSY, close=awaits)
        elif awaits:
            self._transport.write(_CONTINUE)

    def _is_late(self) -> bool:
        """Whether the request would wait too long for its turn."""
        return self._site.turns.is_full and not self._site.urgent(self._target)

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        self._size += len(body)
        if self._refusal is not None or self._rejected:
            if self._size > self._limits.body + _PATIENCE:
                self._end()
            return
        if self._size > self._limits.body:
            self._release_body()
            self._too_large(self._size)
        elif self._parts is not None:
            self._parts.append(body)
        elif self._body:
            self._parts = [self._body, body]
        else:
            self._body = body

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return  # it is read again: see `_decline`
        now = time.perf_counter()
        self._receiving, self._since, self._fed = False, now, 0
        keep = self._parser.should_keep_alive() and not self._site.draining
        if self._refusal is not None:
            self._drop_or_queue(keep)
            return
        body = self._body if self._parts is None else b"".join(self._parts)
        if self._counted_bytes:
            self._release_body()
        method = self._parser.get_method().decode("ascii")
        request = Request(method, self._target, self._headers, body, self._client, now, rejected=self._rejected)
        if self._task is not None or self._waiting or not self._writable:
            self._wait(request, keep=keep)
            if self._waiting.crowded:
                self._crowded = True
                self._transport.pause_reading()
        elif self._site.urgent(self._target):
            self._answer(request, keep=keep)
        elif self._site.turns.try_start():
            self._answer(request, keep=keep)
            self._site.turns.finish(len(body))
        else:
            self._wait(request, keep=keep)
            if self._waiting:
                self._join()

    def _wait(self, request: Request, *, keep: bool) -> None:
        taken = len(self._target) + self._header_bytes + _PER_HEADER * self._header_count
        if self._waiting.fits(request.body, taken):
            self._waiting.add(request, taken, keep=keep)
        else:
            self._refuse("crowded", 429, _CROWDED)
            self._drop_or_queue(keep)

    # --- refusals

    def _too_large(self, size: int, *, close: bool = False) -> None:
        text = f"the body is larger than {self._limits.body} bytes; send fewer rows a request"
        self._refuse("body", 413, text, close=close or size > self._limits.body + _PATIENCE)

    def _reject_head(self, size: int) -> None:
        """Refuse a request by its head; its body is discarded."""
        self._rejected = True
        if self._task is None and not self._waiting and self._writable:
            method, now = self._parser.get_method().decode("ascii"), time.perf_counter()
            request = Request(method, self._target, self._headers, b"", self._client, now, rejected=True)
            response = self._handle(request)
            if isinstance(response, Response):
                self._refuse_with(response, close=size > self._limits.body or b"expect" in self._headers)
        elif size > self._limits.body:
            self._too_large(size)

    def _refuse(self, reason: Reason, status: int, text: str, *, close: bool = False) -> None:
        """Refuse a request before it is complete; the rest of it is discarded."""
        if self._refusal is None:
            self._site.refusals.add(reason, status, self._client)
            self._refuse_with(error_response(status, text), close=close)

    def _refuse_with(self, response: Response, *, close: bool) -> None:
        self._refusal = response
        if self._task is None and not self._waiting:
            self._answered = True
            self._write(response, keep=not close, bare=self._parser.get_method() == b"HEAD")

    def _drop_or_queue(self, keep: bool) -> None:
        """Finish a refused request, which was answered already or waits for earlier ones."""
        if not self._answered and self._refusal is not None:
            # Order is kept by ending: an earlier request is still being answered.
            self._ending = True
        elif not keep:
            self._end()

    def _fail(self, reason: Reason, status: int, text: str) -> None:
        """Answer an error after which the connection cannot continue, and end it."""
        if self._answered:  # and counted
            self._end()
            return
        if self._refusal is None:
            self._site.refusals.add(reason, status, self._client)
        if self._task is None and not self._waiting:
            self._write(error_response(status, text), keep=False)
        else:
            self._ending = True

    # --- answers

    def _answer(self, request: Request, *, keep: bool) -> None:
        response = self._handle(request)
        if isinstance(response, Response):
            self._write(response, keep=keep, bare=request.method == "HEAD")
            return
        self._task = asyncio.ensure_future(response)
        self._task.add_done_callback(lambda task: self._done(task, request, keep=keep))

    def _done(self, task: asyncio.Task[Response], request: Request, *, keep: bool) -> None:
        self._task = None
        if task.cancelled():
            return
        self._write(task.result(), keep=keep and not self._site.draining, bare=request.method == "HEAD")
        self._next()

    def _join(self) -> None:
        self._queued = True
        self._site.turns.join(self.take_turn, self._waiting.next_body)

    def take_turn(self) -> None:
        """Answer the next queued request; one behind it on this connection is queued again."""
        self._queued = False
        if self._ready():
            request, keep = self._waiting.take()
            self._answer(request, keep=keep and not self._site.draining)
        if self._waiting or self._ending or self._crowded:
            if self._ready():
                self._join()
            self._next()

    def _ready(self) -> bool:
        return bool(self._waiting and self._task is None and self._writable and not self._transport.is_closing())

    def _next(self) -> None:
        while not self._queued and self._ready():
            request, keep = self._waiting.take()
            self._answer(request, keep=keep)
        if self._writable and not self._waiting.crowded:
            self._crowded = False
            self._transport.resume_reading()
        if self._ending and self._task is None and not self._waiting:
            self._end()

    def _write(self, response: Response, *, keep: bool, bare: bool = False) -> None:
        if self._transport.is_closing():
            return
        start = head(response, close=not keep)
        self._transport.write(start if bare else start + response.body)
        if not keep:
            self._end()

    def _end(self) -> None:
        """Close once what was written is sent. Where the client may still be sending, its end is awaited for a moment:
        closing on bytes that nobody read resets the connection, and the answer would be lost on its way.
        """
        known, self._ending, self._since = self._ending, True, time.perf_counter()
        if known or not self._receiving:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # --- what the site calls

    def expire(self, now: float) -> None:
        """End a connection that is idle, does not complete its request, or reads nothing of its answer."""
        unconfirmed = self._count_unconfirmed()
        if unconfirmed != self._unconfirmed or not unconfirmed:
            self._unconfirmed, self._unconfirmed_since = unconfirmed, now
        if unconfirmed and now - self._unconfirmed_since > self._limits.request:
            self._site.refusals.add("unread", 0, self._client)
            self.abort()
        elif self._task is not None or self._waiting or (unconfirmed and (self._ending or not self._receiving)):
            return
        elif self._ending:
            if now - self._since > SWEEP:  # a client that has all of its answer is waited for but a moment
                self.abort()
        elif self._receiving:
            if now - self._since > self._limits.request:
                self._fail("slow", 408, f"the request did not come whole in {self._limits.request:g} s")
        elif now - self._since > self._limits.idle:
            self._end()

    def _count_unconfirmed(self) -> int:
        """Bytes that were written and are not confirmed by the client."""
        size = self._transport.get_write_buffer_size()
        if not (size or self._ending):
            return 0
        return size + count_unsent(self._transport.get_extra_info("socket"))

    def finish(self) -> None:
        """Close the connection once all received requests are answered."""
        if self._task is None and not self._waiting and not self._receiving:
            self._end()

    def abort(self) -> None:
        self._transport.abort()

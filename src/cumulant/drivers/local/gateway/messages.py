"""What both sides of the gateway know of HTTP/1.1: bodies that come in parts, headers, small answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus

import msgspec

Header = tuple[bytes, bytes]

#: bytes of a body that wait to be passed on before its sender is made to wait
HIGH_WATER = 256 * 1024
#: true of one connection only; framing is written anew
_OF_THE_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
     b"content-length", b"expect", b"http2-settings", b"proxy-authenticate", b"proxy-authorization"}
)  # fmt: skip
_CODES = {404: "not-found", 429: "overloaded", 500: "error", 503: "engine-unavailable", 504: "deadline"}
_encode = msgspec.json.Encoder().encode


class Fault(Exception):  # noqa: N818 - a request's end, told in the log
    """Why a request gets no answer of a server. `kind` is as in `Exchange.fault`; empty: the caller is at fault."""

    def __init__(self, kind: str, status: int, text: str) -> None:
        super().__init__(text)
        self.kind, self.status, self.text = kind, status, text


class Body:
    """A body on its way: one side feeds it, the other reads it, and the first is made to wait where it is faster."""

    __slots__ = ("_error", "_held", "_parts", "_pause", "_paused", "_resume", "_waiter", "ended")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._pause, self._resume, self._paused = pause, resume, False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        #: nothing more comes
        self.ended = False

    @property
    def paused(self) -> bool:
        """Whether its sender waits for us."""
        return self._paused

    @property
    def waits(self) -> bool:
        """Whether something has come that was not read."""
        return bool(self._parts)

    def feed(self, part: bytes) -> None:
        self._parts.append(part)
        self._held += len(part)
        if self._held > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest does not come."""
        if not self.ended and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def rest(self) -> bytes:
        """What has come and was not read."""
        parts, self._parts, self._held = self._parts, deque(), 0
        self._go_on()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read(self) -> bytes:
        """What has come; empty at the end.

        Raises:
            Fault: the rest does not come.
        """
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.rest()

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._resume()


class Valve:
    """Whether a transport takes more; `wait` until it does."""

    __slots__ = ("_waiter", "open")

    def __init__(self) -> None:
        self.open = True
        self._waiter: asyncio.Future[None] | None = None

    def set(self, *, to: bool) -> None:
        self.open = to
        if to and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        while not self.open:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


def passed_on(headers: Sequence[Header], *, without: frozenset[bytes]) -> list[Header]:
    """Headers for the other side: not those of this connection, nor those that `Connection` names, nor `without`."""
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    return [
        (name, value)
        for name, value in headers
        if name not in _OF_THE_HOP and name not in without and name not in named
    ]


def head(first: bytes, headers: Iterable[Header]) -> bytes:
    """A message's head, ready to send."""
    return b"\r\n".join((first, *(b"%b: %b" % pair for pair in headers), b"", b""))


def with_headers(message: bytes, headers: Iterable[Header]) -> bytes:
    """A whole message with headers added to its head."""
    end = message.index(b"\r\n") + 2
    return b"".join((message[:end], *(b"%b: %b\r\n" % pair for pair in headers), message[end:]))


def status_line(status: int, reason: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d %b" % (status, reason or _reason(status))


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


LAST_CHUNK = b"0\r\n\r\n"


def small_answer(
    status: int,
    body: bytes,
    *,
    kind: bytes = b"application/json",
    headers: Sequence[Header] = (),
    close: bool = False,
    bare: bool = False,
) -> bytes:
    """A whole answer of our own; `bare`: to HEAD."""
    told = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers]
    if close:
        told.append((b"connection", b"close"))
    return head(status_line(status), told) + (b"" if bare else body)


def error_body(status: int, text: str) -> bytes:
    """As the errors of the servers look."""
    return _encode({"code": _CODES.get(status, "request"), "error": text, "retryable": status in (429, 503, 504)})

"""One HTTP request from outside the data plane, by httpx, bounded in time and in bytes.

The transport is called without httpx's client: that one would log every URL, which may hold a secret, follow its own
rules of redirects and proxies, and decompress answers of any size.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from cumulant.core.errors import causes, missing_part
from cumulant.core.network.outbound import Destination, OutboundRefusedError, outbound_hosts
from cumulant.core.version import __version__

if TYPE_CHECKING:
    import socket

    import httpx

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10


class HttpResponse(msgspec.Struct, frozen=True):
    """Names of headers are in lower case; the body is as it was sent, never decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class NoResponseError(Exception):
    """No whole response came.

    Attributes:
        reason: the cause, in the words of the system, without the URL.
        incomplete: nothing whole came in time: a time-out, or a connection that the server closed.
        certificate: why the server's certificate cannot be verified; empty where that is not the reason.
        head: the response without its body, where that much came.
    """

    head: HttpResponse | None = None

    def __init__(self, reason: str, *, incomplete: bool = False, certificate: str = "") -> None:
        super().__init__(reason)
        self.reason, self.incomplete, self.certificate = reason, incomplete, certificate


class HeadResponses(NamedTuple):
    """The response to each request, None where none came or it was not sent; `cause`: why, empty where all came."""

    responses: list[HttpResponse | None]
    cause: str = ""


class HttpClient(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are sent.

    Attributes:
        seconds: for the connection, and for each part of the response.
        total_seconds: for all of it; a server that answers byte by byte never exceeds `seconds`.
        max_bytes: of a longer body so much is read, and one that ends before its declared length is taken as it is;
            None: all of it, or an error.
        authority: a PEM file of those who may have signed the server's certificate; None: those of the system.
        use_proxies: by the proxies of the environment; without, straight to the server.
        follow_redirects: of a GET, on the same host and never from https to http; others are returned as they are.
    """

    seconds: float
    total_seconds: float | None = None
    max_bytes: int | None = None
    authority: str | None = None
    use_proxies: bool = False
    follow_redirects: bool = False

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
        """Raises NoResponseError: the URL is none, or no whole response came."""
        response = self.send("GET", url, headers=headers)
        for _ in range(_MOST_REDIRECTS if self.follow_redirects else 0):
            target = _same_host(url, response)
            if target is None:
                break
            url, response = target, self.send("GET", target, headers=headers)
        return response

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        transport: httpx.HTTPTransport | None = None,
    ) -> HttpResponse:
        """The response to one request, a redirect too. Where it may go: see `outbound`. `transport`: that of several
        requests to one server.

        Raises:
            NoResponseError: as `get`, or the request may not go there.
            UsageError: the list of hosts is none.
        """
        httpx = _httpx()
        limit, head = _TimeLimit(self.total_seconds), None
        try:
            proxy = _proxy(url) if self.use_proxies else None
            destination = Destination(url, outbound_hosts(os.environ), through_proxy=proxy is not None)

            def trace(event: str, info: Mapping[str, Any]) -> None:
                destination.on_event(event, info)
                limit.trace(event, info)

            request = httpx.Request(
                method,
                url,
                headers=_DEFAULTS | dict(headers or {}),
                content=content,
                extensions={"timeout": httpx.Timeout(self.seconds).as_dict(), "trace": trace},
            )
            shared = None if transport is None else contextlib.nullcontext(transport)
            with limit, shared or self._transport(url, proxy) as connections:
                received = connections.handle_request(request)
                head = HttpResponse(received.status_code, dict(received.headers), b"")
                with contextlib.closing(received):
                    body = _body(received) if self.max_bytes is None else _beginning(received, self.max_bytes)
                limit.check()  # a body that was cut off may look whole
        except OutboundRefusedError as error:
            raise NoResponseError(str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            reported = _no_response(error, exceeded=limit.exceeded)
            reported.head = head
            raise reported from error
        return msgspec.structs.replace(head, body=body)

    def head_all(self, urls: Sequence[str], *, at_once: int, seconds: float) -> HeadResponses:
        """HEAD requests to one server, over `at_once` connections. No more are sent once so many had no response; after
        `seconds` it returns with those that came, whatever the server does.

        Raises:
            NoResponseError: the environment names a proxy that speaks no HTTP.
            UsageError: the list of hosts is none.
        """
        if not urls:
            return HeadResponses([])
        outbound_hosts(os.environ)
        transport = self._transport(urls[0], _proxy(urls[0]) if self.use_proxies else None)
        return _HeadRequests(self, transport, urls, min(at_once, len(urls)), seconds).responses()

    def _transport(self, url: str, proxy: str | None) -> httpx.HTTPTransport:
        context = ssl.SSLContext(
            ssl.PROTOCOL_TLS_CLIENT
        )  # trusts no authority; loading the system's authorities takes 17 ms
        if urlsplit(url).scheme == "https":
            context = ssl.create_default_context(cafile=self.authority)
        transport: httpx.HTTPTransport = _httpx().HTTPTransport(verify=context, proxy=proxy)
        return transport


class _HeadRequests:
    """To one server, by `workers` threads, which close the connections at their end."""

    def __init__(
        self, client: HttpClient, transport: httpx.HTTPTransport, urls: Sequence[str], workers: int, seconds: float
    ) -> None:
        self._client, self._transport, self._urls = client, transport, urls
        self._seconds, self._deadline = seconds, time.monotonic() + seconds
        self._responses: list[HttpResponse | None] = [None] * len(urls)
        self._failures: list[str] = []
        self._workers = self._left = workers
        self._numbers, self._lock, self._ended = iter(range(len(urls))), threading.Lock(), threading.Event()

    def responses(self) -> HeadResponses:
        # nobody waits for these threads at the end of the process, which a server could hold up
        for thread in [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]:
            thread.start()
        in_time = self._ended.wait(max(0.0, self._deadline - time.monotonic()))
        came, failed = [*self._responses], [*self._failures]
        if None not in came:
            return HeadResponses(came)
        if failed and in_time:
            return HeadResponses(came, f"{len(failed)} requests had no response: {failed[0]}")
        return HeadResponses(came, f"the server took longer than {self._seconds:.0f} s")

    def _work(self) -> None:
        try:
            while len(self._failures) < self._workers and (remaining := self._deadline - time.monotonic()) > 0:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    break
                self._send(number, remaining)
        finally:
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._transport.close()
                if self._left == 0 or len(self._failures) >= self._workers:
                    self._ended.set()

    def _send(self, number: int, remaining: float) -> None:
        seconds, headers = min(self._client.seconds, remaining), {"connection": "keep-alive"}
        client = msgspec.structs.replace(self._client, seconds=seconds, total_seconds=remaining)
        try:
            self._responses[number] = client.send(
                "HEAD", self._urls[number], headers=headers, transport=self._transport
            )
        except NoResponseError as error:
            self._failures.append(error.reason)


_DEFAULTS = {"user-agent": f"cumulant/{__version__}", "accept-encoding": "identity", "connection": "close"}


class _TimeLimit:
    """Cuts connections off after so many seconds."""

    def __init__(self, seconds: float | None) -> None:
        self.exceeded = False
        self._sockets: list[socket.socket] = []
        self._timer = None if seconds is None else threading.Timer(seconds, self._exceed)

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for connection in self._sockets:
            connection.close()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpx reports while it sends. A copy of the socket stays the connection's where TLS takes it over."""
        if self._timer is not None and event.startswith("connection.connect_") and event.endswith(".complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket").dup())
            self.check()

    def check(self) -> None:
        """Raises TimeoutError where the time has passed."""
        if self.exceeded:
            raise TimeoutError

    def _exceed(self) -> None:
        self.exceeded = True
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(2)


def _httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise missing_part("httpx", "train") from error
    return httpx


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise NoResponseError("the environment names a proxy that speaks no HTTP")
    return proxy


def _same_host(url: str, response: HttpResponse) -> str | None:
    """Where a redirect leads, if that may be followed."""
    if response.status not in _REDIRECTS or "location" not in response.headers:
        return None
    try:
        target = urljoin(url, response.headers["location"])
        source, parts = urlsplit(url), urlsplit(target)
    except ValueError:
        return None
    same = parts.hostname == source.hostname and parts.scheme in (source.scheme, "https")
    return target if same else None


def _body(received: httpx.Response) -> bytes:
    return b"".join(received.iter_raw())


def _beginning(received: httpx.Response, longest: int) -> bytes:
    """So much of the body, or all of a body that is shorter than its declared length."""
    body, chunks = b"", received.iter_raw()
    try:
        while len(body) < longest and (chunk := next(chunks, b"")):
            body += chunk
    except _httpx().RemoteProtocolError:
        if "content-length" not in received.headers:
            raise
    return body[:longest]


def _no_response(error: Exception, *, exceeded: bool) -> NoResponseError:
    httpx = _httpx()
    timed_out = exceeded or isinstance(error, httpx.TimeoutException | TimeoutError)
    if timed_out or isinstance(error, httpx.RemoteProtocolError):
        return NoResponseError("timed out" if timed_out else str(error)[:200], incomplete=True)
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NoResponseError(cause.strerror or "", certificate=cause.verify_message)
        if isinstance(cause, OSError) and cause.strerror:
            return NoResponseError(cause.strerror)
    # the text of an error of an address may be the address
    return NoResponseError(type(error).__name__)

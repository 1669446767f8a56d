"""One POST of a JSON document, in bounded time, to a URL that is never told."""

from __future__ import annotations

import base64
import contextlib
import http.client
import math
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import msgspec

from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    OverloadedError,
    TerminalError,
    UndeliverableError,
    UsageError,
)
from cumulant.core.version import __version__

#: of an answer that refuses, so much is told
_LONGEST = 200
#: answers that say "not now"
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
#: answers that are of the document and not of who sends it where
_OF_THE_MESSAGE = frozenset({400, 413, 422})
#: the longest pause that a receiver may ask for, in seconds
_PAUSE = 3600.0


class Target:
    """Where to post: the URL without its driver's name and without a password, which becomes a header.

    Raises:
        UsageError: it is no URL of a host.
    """

    def __init__(self, url: str, prefix: str) -> None:
        plain = url.removeprefix(prefix)
        try:
            parts = urlsplit(plain)
            parts.port  # noqa: B018 - it is checked when it is read
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise UsageError(
                f"the address of a receiver behind {prefix} is no URL of a host",
                subject=prefix,
                hint=f"write {prefix}https://HOST/PATH, or a secret that holds it: {prefix}${{secret:NAME}}",
            )
        self.headers: dict[str, str] = {}
        if parts.username or parts.password:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self.headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def __repr__(self) -> str:
        return f"Target({urlsplit(self.url).hostname!r})"


def post(target: Target, document: object, *, key: str, seconds: float) -> str:
    """Post a document; the beginning of what the receiver answered. A redirect is not followed: it would lose the body.

    Raises:
        OverloadedError: it asks for a pause.
        EngineUnavailableError: it does not answer in time, or says that it cannot now.
        UndeliverableError: it refuses this document.
        TerminalError: it refuses: address, credentials or settings are wrong.
    """
    headers = {
        "content-type": "application/json", "user-agent": f"cumulant/{__version__}", "idempotency-key": key
    } | target.headers  # fmt: skip
    body = msgspec.json.encode(document)  # a text that cannot be written is a fault of the message, not of the receiver
    try:
        request = urllib.request.Request(target.url, body, headers)  # noqa: S310 - checked by Target
        with _Limit(seconds) as limit:
            try:
                with _opener(limit.watch).open(request, timeout=seconds) as answer:
                    said = _text(answer.read(_LONGEST))
            except urllib.error.HTTPError as error:
                with error:  # also why it refuses may be said drop by drop
                    raise _answered(error) from None
            limit.check()  # an answer that was cut off looks whole
            return said
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EngineUnavailableError(f"it does not answer: {_reason(error, seconds)}") from None


def _answered(error: urllib.error.HTTPError) -> CumulantError:
    if 300 <= error.code < 400:
        return TerminalError(f"it answered {error.code}, a redirect", hint="write the address that it redirects to")
    said = "" if error.code == 429 else _said(error)
    text = f"it answered {error.code}" + (f": {said}" if said else "")
    if error.code in _OF_THE_MESSAGE:
        return UndeliverableError(text, hint="see what it says; other messages go on")
    if error.code not in _LATER:
        return TerminalError(text, hint="see that address, credentials and the receiver's own settings are right")
    pause = _pause(error.headers.get("retry-after"))
    return EngineUnavailableError(text) if pause is None else OverloadedError(text, retry_after=pause)


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return _text(error.read(_LONGEST))
    except (OSError, http.client.HTTPException, ValueError):
        return ""


def _text(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())


def _pause(text: str | None) -> float | None:
    try:
        seconds = math.nan if text is None else float(text)
    except ValueError:  # a date: the usual pauses do
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _PAUSE)


def _reason(error: Exception, seconds: float) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError | ValueError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return f"nothing whole within {seconds:g} s"
    return getattr(reason, "strerror", None) or type(reason).__name__


def _opener(made: Callable[[Any], Any]) -> urllib.request.OpenerDirector:
    """As urllib's own, by the proxies of the environment; connections are told to `made`, redirects are refused."""

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(lambda *args, **own: made(http.client.HTTPConnection(*args, **own)), req)

    class Encrypted(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(lambda *args, **own: made(http.client.HTTPSConnection(*args, **own)), req)

    class Refused(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    return urllib.request.build_opener(Plain, Encrypted, Refused)


class _Limit:
    """Cuts connections off after so many seconds: a receiver that answers drop by drop never times out by itself."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._passed = seconds, False
        self._ended = threading.Event()
        self._watched: list[Any] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._cut, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def watch(self, connection: Any) -> Any:
        connect = connection.connect

        def connected() -> None:
            connect()
            self._sockets.append(connection.sock)  # urllib takes it from the connection before the body is read

        connection.connect = connected
        self._watched.append(connection)
        return connection

    def check(self) -> None:
        """Raises TimeoutError where the time has passed."""
        if self._passed:
            raise TimeoutError

    def _cut(self) -> None:
        if self._ended.wait(self._seconds):
            return
        self._passed = True
        for one in (*self._sockets, *(connection.sock for connection in self._watched)):
            with contextlib.suppress(OSError, TypeError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)

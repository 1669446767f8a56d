"""One POST of a JSON document, in bounded time, to a URL that is never told."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, OverloadedError, TerminalError, UsageError
from cumulant.core.version import __version__

#: of an answer that refuses, so much is told
_LONGEST = 200
#: answers that say "not now"
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
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
        TerminalError: it refuses.
    """
    headers = {
        "content-type": "application/json", "user-agent": f"cumulant/{__version__}", "idempotency-key": key
    } | target.headers  # fmt: skip
    try:
        request = urllib.request.Request(target.url, msgspec.json.encode(document), headers)  # noqa: S310 - checked by Target
        with _within(seconds) as made, _opener(made).open(request, timeout=seconds) as answer:
            return _text(answer.read(_LONGEST))
    except urllib.error.HTTPError as error:
        with error:
            raise _answered(error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EngineUnavailableError(f"it does not answer: {_reason(error, seconds)}") from None


def _answered(error: urllib.error.HTTPError) -> CumulantError:
    if 300 <= error.code < 400:
        return TerminalError(f"it answered {error.code}, a redirect", hint="write the address that it redirects to")
    said = "" if error.code == 429 else _said(error)
    text = f"it answered {error.code}" + (f": {said}" if said else "")
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
        return None if text is None else min(max(float(text), 0.0), _PAUSE)
    except ValueError:  # a date: the usual pauses do
        return None


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


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[Callable[[Any], Any]]:
    """Cut the connections that were made off after so many seconds: a receiver that answers drop by drop never times
    out by itself.
    """
    connections: list[Any] = []
    ended = threading.Event()
    until = time.monotonic() + seconds

    def cut() -> None:
        if ended.wait(max(0.0, until - time.monotonic())):
            return
        for one in connections:
            with contextlib.suppress(OSError, AttributeError):
                socket.socket.shutdown(one.sock, socket.SHUT_RDWR)

    def made(connection: Any) -> Any:
        connections.append(connection)
        return connection

    threading.Thread(target=cut, daemon=True).start()
    try:
        yield made
    finally:
        ended.set()

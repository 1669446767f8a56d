"""One POST of a JSON document, in bounded time, to a URL that no message shows."""

from __future__ import annotations

import base64
import math
from typing import ClassVar
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
from cumulant.core.network.http_client import HttpClient, HttpResponse, NoResponseError

#: characters of a refusal that an error quotes
_LONGEST = 200
#: statuses that allow a retry later
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
#: statuses that concern the document, not its sender or address
_OF_THE_MESSAGE = frozenset({400, 413, 422})
#: the longest pause that a receiver may request, in seconds
_PAUSE = 3600.0


class WebhookTarget:
    """The target of a POST: the URL without the driver's prefix and without the password, which becomes a header.

    Raises:
        UsageError: the URL has no host.
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


class WebhookClient:
    """The base of clients of the port `notifier` over HTTP: a target behind the driver's `prefix`."""

    prefix: ClassVar[str]

    def __init__(self, url: str) -> None:
        self._target = WebhookTarget(url, self.prefix)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target!r})"


def post(target: WebhookTarget, document: object, *, key: str, seconds: float) -> str:
    """Post a document; returns the start of the response. A redirect is not followed: it would lose the body.

    Raises:
        OverloadedError: the receiver requests a pause.
        EngineUnavailableError: it does not respond in time, or is unavailable.
        UndeliverableError: it refuses this document.
        TerminalError: it refuses: address, credentials or settings are wrong.
    """
    headers = {"content-type": "application/json", "idempotency-key": key} | target.headers
    body = msgspec.json.encode(document)  # a text that cannot be encoded is a fault of the message, not of the receiver
    client = HttpClient(seconds=seconds, total_seconds=seconds, max_bytes=_LONGEST, use_proxies=True)
    try:
        response = client.send("POST", target.url, headers=headers, content=body)
    except NoResponseError as error:
        if error.head is None or error.head.ok:
            reason = f"nothing whole within {seconds:g} s" if error.incomplete else error.reason
            raise EngineUnavailableError(f"it does not answer: {reason}") from None
        response = error.head  # the reason of a refusal may arrive slowly
    if response.ok:
        return _text(response)
    raise _refusal(response)


def _refusal(response: HttpResponse) -> CumulantError:
    status = response.status
    if 300 <= status < 400:
        return TerminalError(f"it answered {status}, a redirect", hint="write the address that it redirects to")
    reply = "" if status == 429 else _text(response)
    text = f"it answered {status}" + (f": {reply}" if reply else "")
    if status in _OF_THE_MESSAGE:
        return UndeliverableError(text, hint="see what it says; other messages go on")
    if status not in _LATER:
        return TerminalError(text, hint="see that address, credentials and the receiver's own settings are right")
    pause = _parse_pause(response.headers.get("retry-after"))
    return EngineUnavailableError(text) if pause is None else OverloadedError(text, retry_after=pause)


def _text(response: HttpResponse) -> str:
    return " ".join(response.body.decode("utf-8", "replace").split())


def _parse_pause(text: str | None) -> float | None:
    try:
        seconds = math.nan if text is None else float(text)
    except ValueError:  # a date: the usual pauses do
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _PAUSE)

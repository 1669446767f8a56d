"""Requests that a page of another site makes a signed-in browser send, and how they are told from our own."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request

from cumulant.server.forms import is_form, parse_form, read_body

if TYPE_CHECKING:
    from starlette.types import Message, Receive

#: the field of a form, and the header, with the token
FIELD, HEADER = "csrf", "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_PORTS = {"http": 80, "https": 443}


def csrf_token(secret: str) -> str:
    """The token of a session's forms: of its secret, so that it changes with each sign-in and needs no store."""
    return hmac.new(secret.encode(), b"cumulant csrf", hashlib.sha256).hexdigest()


def origin_fault(request: Request, url: str) -> str:
    """Why the origin of an unsafe request is refused; empty where it is ours. `url`: the console's declared address."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return "a page of another site may not do this"
    origin = request.headers.get("origin")
    if origin is None:
        return "" if site == "same-origin" else "the request names no origin"
    own = url or f"{request.url.scheme}://{request.headers.get('host', '')}"
    known = _origin(origin)
    return "" if known is not None and known == _origin(own) else "a page of another origin may not do this"


def is_token(given: str, secret: str) -> bool:
    """Whether the token of a request is that of the session. The time of the answer does not show how near it is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), csrf_token(secret).encode())


async def read_token(request: Request, receive: Receive) -> tuple[str, Receive]:
    """The token of a request, and what the application receives from: a form that was read comes again.

    Raises:
        RequestError: the form is too large, or none.
    """
    header = request.headers.get(HEADER)
    if header is not None:
        return header, receive
    if not is_form(request):
        return "", receive
    try:
        body = await read_body(Request(request.scope, receive))
    except ClientDisconnect:
        return "", receive
    return parse_form(body).get(FIELD, ""), _again(body, receive)


def _again(body: bytes, receive: Receive) -> Receive:
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None where it is no origin, such as `null`."""
    try:
        parts = urlsplit(url.lower())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port

"""The little of HTTP that an ASGI application needs here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from cumulant.serving.errors import HttpError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
encode = msgspec.json.Encoder().encode


class Response(msgspec.Struct):
    """What goes back; the body is whole, so that its length is always said."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, encode(value))


def error_response(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    return Response(status, encode({"error": text}), headers=headers)


async def send_response(send: Send, response: Response) -> None:
    headers: Headers = [
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes.

    Raises:
        HttpError: 413 for a larger body (at once where its length is said), 415 for a compressed one.
    """
    if header(scope, b"content-encoding") not in (None, b"identity"):
        raise HttpError(415, "compressed requests are not accepted", hint="send the body as plain JSON")
    if header(scope, b"inference-header-content-length") is not None:
        raise HttpError(400, "binary tensor data is not accepted", hint="send the values as JSON")
    length = header(scope, b"content-length")
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return _bounded(body, limit)
    parts, size = [body], len(body)
    while message.get("more_body", False) and size <= limit:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    return _bounded(b"".join(parts), limit)


def _bounded(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"the body is larger than {limit} bytes", hint="send fewer rows a request")

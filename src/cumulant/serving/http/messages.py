"""HTTP requests and responses."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

JSON = b"application/json"
encode = msgspec.json.Encoder().encode

Headers = dict[bytes, bytes]


class Request(msgspec.Struct, eq=False):
    """A whole request. Header names are lower case; of a repeated header the first value counts."""

    method: str
    #: path and query as they were sent
    target: bytes
    headers: Headers
    body: bytes
    #: the peer's address
    client: str = ""
    #: when its last byte came, by `time.perf_counter`
    received: float = 0.0
    #: the gateway in front has proved that it sent the request on
    forwarded: bool = False
    #: it was to be refused by its head, so that its body is thrown away
    rejected: bool = False
    #: who sends it, once that is known
    principal: str = ""


class Response(msgspec.Struct):
    """A complete response."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, encode(value))


def error_response(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    return Response(status, encode({"error": text}), headers=headers)


_HEADS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: ".encode() for status in HTTPStatus}


def head(response: Response, *, close: bool) -> bytes:
    """The head of `response`, with the blank line that ends it."""
    parts = [_HEADS[response.status], response.content_type, b"\r\ncontent-length: %d\r\n" % len(response.body)]
    parts += [b"%b: %b\r\n" % pair for pair in response.headers]
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(parts)

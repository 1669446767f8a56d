"""Compression of bodies: bounded decompression, and compression of large responses."""

from __future__ import annotations

import zlib

from cumulant.serving.errors import HttpError
from cumulant.serving.http.messages import Request, Response

#: bytes of a body below which compression costs more than it saves
LEAST_COMPRESSED = 4096
_GZIP, _ZLIB = 31, 15


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """`body` without its gzip or deflate compression; at most `limit` bytes are produced.

    Raises:
        HttpError: 415 for another encoding, 400 for a broken stream, 413 where more than `limit` comes out.
    """
    kind = encoding.strip().lower()
    if kind == b"identity":
        return body
    if kind not in (b"gzip", b"deflate"):
        raise HttpError(415, "the body has an encoding that is not accepted", hint="use gzip, deflate or none")
    stream = zlib.decompressobj(_GZIP if kind == b"gzip" else _ZLIB)
    try:
        content = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise HttpError(400, f"the body is no {kind.decode()} stream: {error}") from None
    if len(content) > limit:
        raise HttpError(413, f"the decompressed body is larger than {limit} bytes", hint="send fewer rows a request")
    if not stream.eof:
        raise HttpError(400, f"the {kind.decode()} stream ends too early")
    return content


def compress(body: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    """`body` in the first known encoding of `accepted` (Accept-Encoding), and its name; empty: unchanged."""
    if len(body) < LEAST_COMPRESSED:
        return body, b""
    for part in accepted.lower().split(b","):
        kind, _, quality = part.strip().partition(b";")
        if kind in (b"gzip", b"deflate") and quality.replace(b" ", b"") not in (b"q=0", b"q=0.0"):
            packer = zlib.compressobj(level=1, wbits=_GZIP if kind == b"gzip" else _ZLIB)
            return packer.compress(body) + packer.flush(), kind
    return body, b""


def compress_response(response: Response, request: Request) -> Response:
    """The response, compressed where the caller accepts it and it pays."""
    accepted = request.headers.get(b"accept-encoding")
    body, encoding = compress(response.body, accepted) if accepted else (b"", b"")
    if not encoding:
        return response
    headers = (*response.headers, (b"content-encoding", encoding))
    return Response(response.status, body, response.content_type, headers)

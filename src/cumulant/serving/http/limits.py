"""Bounds of connections."""

from __future__ import annotations

import math
from typing import Self

import msgspec

#: bytes of unfinished bodies in memory, where none may be larger than half of it
_BODIES = 512 * 1024 * 1024


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    body: int = 8 * 1024 * 1024
    target: int = 8 * 1024
    headers: int = 64 * 1024
    header_count: int = 128
    #: for a request to come whole, and for a client to take not one byte of an answer
    request: float = 30.0
    #: between requests
    idle: float = 75.0
    #: requests of one connection that wait for the one before
    waiting: int = 32
    #: bodies that are still coming or wait for their turn, of all connections together
    bodies: int = _BODIES
    #: heads of requests that wait behind others of their connection or for their turn, of all connections together
    heads: int = 128 * 1024 * 1024
    #: for which requests are answered before the sockets are read again
    turn: float = 0.003
    #: that a request may wait in line for the event loop; beyond it requests are refused by their heads
    queue: float = math.inf

    @classmethod
    def of_body(cls, body: int, *, queue: float) -> Self:
        """Those where one body may have `body` bytes: any two of them may come at once."""
        return cls(body=body, bodies=max(_BODIES, 2 * body), queue=queue)

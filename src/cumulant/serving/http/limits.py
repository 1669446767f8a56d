"""Bounds of connections."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
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
    #: bodies that are still coming, of all connections together
    bodies: int = 512 * 1024 * 1024

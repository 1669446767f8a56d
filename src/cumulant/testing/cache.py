"""A shared cache in memory."""

from __future__ import annotations

import time


class MemoryCache:
    """Port `cache` within one process; give the same one to several servers of a test."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[float, bytes]] = {}

    async def open(self) -> None:
        return

    async def get(self, key: str) -> bytes | None:
        until, value = self.entries.get(key, (0.0, b""))
        return value if time.monotonic() < until else None

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        self.entries[key] = (time.monotonic() + ttl, bytes(value))

    async def close(self) -> None:
        return

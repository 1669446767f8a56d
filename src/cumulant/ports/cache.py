"""Port `cache`: answers that several servers share, for a while; losing any of them costs time only."""

from __future__ import annotations

from typing import Protocol


class SharedCache(Protocol):
    """Used from one event loop. Any call may be cancelled: whoever asks waits for a few milliseconds only.

    Every call raises EngineUnavailableError where the store cannot be reached or answers what is no answer, and
    StorageError where it refuses, such as for want of memory.
    """

    async def open(self) -> None:
        """See that the store answers, and reach it if it was not reached before: `get` need not wait for that then."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value; None where there is none, or no longer."""
        ...

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value for `ttl` seconds, in place of its predecessor."""
        ...

    async def close(self) -> None: ...

"""Port `cache`: responses that several servers share for a limited time; losing one costs time only."""

from __future__ import annotations

from typing import Protocol


class SharedCache(Protocol):
    """Used from one event loop. Any call may be cancelled: the caller waits for a few milliseconds only.

    Every call raises EngineUnavailableError where the store cannot be reached or sends an invalid reply, and
    StorageError where it refuses, such as for want of memory.
    """

    async def open(self) -> None:
        """Connect to the store where that was not done before, so that `get` does not wait for it."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value; None where there is none, or no longer."""
        ...

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Store a value for `ttl` seconds, in place of its predecessor."""
        ...

    async def close(self) -> None: ...

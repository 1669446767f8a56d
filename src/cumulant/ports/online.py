"""Port `online`: packed blobs by table and key, read in microseconds or one round trip, however many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Cells(Protocol):
    """The blobs of a store inside an `update`: read as it left them so far, and written."""

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Blobs in the order of `keys`; None also for a table that is not there."""
        ...

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Write blobs, each replacing its predecessor; None removes."""
        ...


class OnlineStore(Protocol):
    """The tables of one scope. Several processes, and where `remote` is true several hosts, use them at once."""

    @property
    def remote(self) -> bool:
        """Whether reading waits for a network: a server then awaits `read` rather than calling `get`."""
        ...

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Blobs in the order of `keys`, all as they stood at one moment."""
        ...

    async def read(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `get`, for an event loop. It may be cancelled."""
        ...

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write blobs, each replacing its predecessor; all or none. Returns how many."""
        ...

    def swap(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Replace the whole table atomically: readers see the old one or the new one."""
        ...

    def update(self, change: Callable[[Cells], Result]) -> Result:
        """What `change` gives, once all that it wrote, in any number of tables, is there at once and as durable as the
        store is.

        What it read is still so when its writes appear: of several updates, of threads or processes, each sees those
        before it whole. Where it raises, nothing is written. It may be called more than once.
        """
        ...

    def meta(self, table: str) -> dict[str, str]: ...

    def put_meta(self, table: str, meta: dict[str, str]) -> None: ...

    def tables(self) -> list[str]:
        """Names of all tables that hold rows or meta, sorted; also of those that a killed `swap` began."""
        ...

    def drop(self, table: str) -> None:
        """Remove a table with its meta; readers see it whole or not at all. Nothing happens where there is none."""
        ...

    def close(self) -> None: ...

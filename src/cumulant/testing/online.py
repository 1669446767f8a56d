"""Online state in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class MemoryOnline:
    """Blobs by table and key."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {}
        self._meta: dict[str, dict[str, str]] = {}

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self._tables.get(table, {})
        return [rows.get(key) for key in keys]

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        written = list(rows)
        self._tables[table] = self._tables.get(table, {}) | dict(written)
        return len(written)

    def swap(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        self._tables[table] = dict(rows)
        return len(self._tables[table])

    def meta(self, table: str) -> dict[str, str]:
        return dict(self._meta.get(table, {}))

    def put_meta(self, table: str, meta: dict[str, str]) -> None:
        self._meta[table] = dict(meta)

    def tables(self) -> list[str]:
        return sorted(self._tables.keys() | self._meta.keys())

    def drop(self, table: str) -> None:
        self._tables.pop(table, None)
        self._meta.pop(table, None)

    def close(self) -> None:
        """Nothing to close; what was written stays."""

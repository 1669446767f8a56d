"""Online state in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from cumulant.ports.online import Cells, Result


class _MemoryCells:
    def __init__(self, store: MemoryOnline) -> None:
        self._store = store
        self.written: dict[str, dict[bytes, bytes | None]] = {}

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        written = self.written.get(table, {})
        stored = self._store.get(table, keys)
        return [written.get(key, blob) for key, blob in zip(keys, stored, strict=True)]

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        self.written.setdefault(table, {}).update(rows)


class MemoryOnline:
    """Blobs by table and key."""

    remote = False

    def __init__(self) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {}
        self._meta: dict[str, dict[str, str]] = {}
        self._updating = threading.Lock()

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self._tables.get(table, {})
        return [rows.get(key) for key in keys]

    async def read(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.get(table, keys)

    def put(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        written = list(rows)
        self._tables[table] = self._tables.get(table, {}) | dict(written)
        return len(written)

    def swap(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        self._tables[table] = dict(rows)
        return len(self._tables[table])

    def update(self, change: Callable[[Cells], Result]) -> Result:
        with self._updating:
            cells = _MemoryCells(self)
            result = change(cells)
            tables = dict(self._tables)
            for table, rows in cells.written.items():
                merged = tables.get(table, {}) | rows
                tables[table] = {key: blob for key, blob in merged.items() if blob is not None}
            self._tables = tables
            return result

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

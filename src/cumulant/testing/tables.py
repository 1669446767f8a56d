"""Tables in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from cumulant.core.errors import DataError, UsageError, not_found
from cumulant.core.refs import TableRef
from cumulant.core.scope import Scope
from cumulant.ports.tables import UNPROTECTED, Protection, TableHead


class MemoryTables:
    """Frames by key. `partition_by` changes nothing but must name columns."""

    def __init__(self) -> None:
        self._frames: dict[str, pl.DataFrame] = {}
        self._protected: dict[str, Protection] = {}
        self._scopes: dict[str, MemoryTables] = {}

    def of(self, scope: Scope) -> MemoryTables:
        """The same store as a client of `scope` sees it."""
        return self._scopes.setdefault(scope.prefix, MemoryTables())

    def write(
        self,
        key: str,
        frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        *,
        partition_by: Sequence[str] = (),
        head: TableHead | None = None,
        protect: Protection = UNPROTECTED,
    ) -> TableRef:
        if not all(key.split("/")):
            raise UsageError(f'"{key}" cannot name a table', subject=key)
        if standing := self.find(key):
            return standing
        if head is not None:
            rows = self.scan(head.key).head(head.rows).collect()
            frames = [rows, *_parts(frames)]
        parts = _parts(frames)
        if any(part.schema != parts[0].schema for part in parts):
            raise DataError(f"the parts of table {key} do not have the same columns and types", subject=key)
        frame = pl.concat(parts) if parts else pl.DataFrame()
        for column in partition_by:
            if column not in frame.columns:
                raise not_found("column", column, frame.columns)
        # Another writer may have been first while the frames came.
        frame = self._frames.setdefault(key, frame)
        self._protected.setdefault(key, protect)
        return TableRef(key, frame.height, int(frame.estimated_size()))

    def scan(self, ref: TableRef | str) -> pl.LazyFrame:
        key = ref if isinstance(ref, str) else ref.key
        if key not in self._frames:
            raise not_found("table", key, self._frames)
        return self._frames[key].lazy()

    def protection(self, ref: TableRef | str) -> Protection:
        self.scan(ref)
        return self._protected[ref if isinstance(ref, str) else ref.key]

    def check(self, ref: TableRef | str) -> None:
        self.scan(ref)

    def find(self, key: str) -> TableRef | None:
        frame = self._frames.get(key)
        return None if frame is None else TableRef(key, frame.height, int(frame.estimated_size()))

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self._frames if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._frames.pop(key, None)
        self._protected.pop(key, None)


def _parts(frames: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]) -> list[pl.DataFrame]:
    if isinstance(frames, (pl.DataFrame, pl.LazyFrame)):
        return [frames.lazy().collect()]
    return list(frames)

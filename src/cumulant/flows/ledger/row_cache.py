"""State rows in memory, for servers that show the same rows again and again: each is read once a version."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from cumulant.ports.journal import ChainHead, Journal, Row, RowVersion

Value = TypeVar("Value")
_Written = tuple[int, datetime]
#: rows that are kept of a kind
_MOST = 1_000


class RowCache(Generic[Value]):
    """What `convert` makes of the rows of one kind of one journal; the rows that were used longest ago are dropped.

    Versions and times of writing are read anew each time, so that a changed row is never shown as it was, nor one of a
    journal that was restored to an earlier moment, which uses versions again. Threads may share it.
    """

    def __init__(self, kind: str, convert: Callable[[Row], Value], *, most: int = _MOST) -> None:
        self._kind, self._convert, self._most = kind, convert, most
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[_Written, Value]] = OrderedDict()
        self._count: tuple[tuple[ChainHead, list[RowVersion]], int] | None = None

    def count(self, journal: Journal) -> int:
        """How many rows there are, counted again where there is a new event or another last row: of rows that are
        written and removed with events, or are the last one.
        """
        now, known = (journal.head(), journal.row_versions(self._kind, limit=1, descending=True)), self._count
        if known is None or known[0] != now:
            known = self._count = (now, journal.count(self._kind))
        return known[1]

    def rows(
        self,
        journal: Journal,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> dict[str, Value]:
        """By key, in the order of `Journal.rows`, the rows that it gives. Raises what `convert` raises."""
        listed = journal.row_versions(self._kind, prefix, after=after, limit=limit, descending=descending)
        values: dict[str, Value] = {}
        with self._lock:
            known = {row.key: self._values.get(row.key) for row in listed}
        stale = {row.key for row in listed if (entry := known[row.key]) is None or entry[0] != _written(row)}
        fresh: dict[str, tuple[_Written, Value]] = {}
        if len(stale) > len(listed) // 2:
            rows = journal.rows(self._kind, prefix, after=after, limit=limit, descending=descending)
            fresh = {row.key: (_written(row), self._convert(row)) for row in rows if row.key in stale}
        else:
            for key in stale:
                if (current := journal.get(self._kind, key)) is not None:
                    fresh[key] = (_written(current), self._convert(current))
        for row in listed:
            entry = fresh.get(row.key) if row.key in stale else known[row.key]
            if entry is not None:  # else it was deleted meanwhile
                values[row.key] = entry[1]
        self._keep(fresh, [row.key for row in listed])
        return values

    def _keep(self, fresh: dict[str, tuple[_Written, Value]], used: list[str]) -> None:
        with self._lock:
            self._values.update(fresh)
            for key in used:
                if key in self._values:
                    self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)


def _written(row: Row | RowVersion) -> _Written:
    return row.version, row.updated

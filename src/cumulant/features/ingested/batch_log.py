"""The log of posted rows while a batch is put into a table: rows that posts may complete are added to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cumulant.features.offline.row_identity import row_identity
from cumulant.features.posted.posted_events import PostedRow, SourceLog, key_values
from cumulant.ports.online import Cells, OnlineStore

#: entries that others may add to the log while a batch is put in, before it is begun again
_MOST_POSTED = 10_000


class PostedMeanwhileError(Exception):
    """Rows of this batch were posted while it was put in."""


class BatchLog:
    """The log in `table` as a batch with rows of these `identities` has seen it, none of which it had: up to the entry
    `following`. `expected`: so many later entries are of the same process.
    """

    def __init__(self, table: str, following: int, expected: int, identities: frozenset[int]) -> None:
        self._table, self._following, self._identities = table, following, identities
        self._most = _MOST_POSTED + expected
        #: the entries of the batch: from the first to after the last; None where there are none, or others between
        self.own: tuple[int, int] | None = None
        self._is_divided = False

    def check(self, cells: Cells) -> SourceLog:
        """The log inside a change. Raises PostedMeanwhileError: it has rows of the batch that it did not have."""
        log = SourceLog(cells, self._table)
        if log.next != self._following:
            records, end = log.since(self._following, self._most)
            if end < log.next or any(row_identity(key_values(key)) in self._identities for key, _ in records):
                raise PostedMeanwhileError
        return log

    def append(self, store: OnlineStore, rows: Sequence[PostedRow]) -> None:
        """Add rows of the batch, each of another key.

        Raises:
            PostedMeanwhileError: some were posted meanwhile.
            EngineUnavailableError, StorageError: the store cannot be written.
        """
        begin, end = store.update(partial(self._append, rows=rows))
        self._is_divided |= self.own is not None and self.own[1] != begin
        self.own = (begin if self.own is None else self.own[0], end)
        self._following = end

    def mark_after(self, mark: int) -> int:
        """Up to which entry a table holds the rows, which held them up to `mark`, once it has those of the batch."""
        if self.own is None or self._is_divided or mark != self.own[0]:
            return mark
        return self.own[1]

    def _append(self, cells: Cells, rows: Sequence[PostedRow]) -> tuple[int, int]:
        log = self.check(cells)
        begin = log.next
        log.append_new(rows)
        log.save()
        return begin, log.next

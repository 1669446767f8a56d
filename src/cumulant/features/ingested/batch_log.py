"""The log of posted rows while a batch is put into a table: rows that posts may complete are added to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from cumulant.features.offline.row_identity import row_identity
from cumulant.features.posted.posted_events import Inside, SourceLog, key_values
from cumulant.ports.online import Cells, OnlineStore, Result

#: entries of others that one change reads; before it, as many are read as there are more
_MOST_POSTED = 10_000


class PostedMeanwhileError(Exception):
    """Rows of this batch were posted while it was put in."""


class _MoreEntriesError(Exception):
    """The log has more entries of others than one change reads."""


class BatchLog:
    """The log in `table` as a batch with rows of these `identities` has seen it, none of which it had: up to the entry
    `following`.
    """

    def __init__(self, store: OnlineStore, table: str, following: int, identities: frozenset[int]) -> None:
        self._store, self._table, self._following, self._identities = store, table, following, identities
        #: the entries of the batch: from the first to after the last; None where there are none, or others between
        self.own: tuple[int, int] | None = None
        self._is_divided = False

    def update(self, change: Callable[[Cells], Result]) -> Result:
        """Make a change of the store that begins with `check`.

        Raises:
            PostedMeanwhileError: the log has rows of the batch that it did not have.
            EngineUnavailableError, StorageError: the store cannot be written.
        """
        while True:
            try:
                return self._store.update(change)
            except _MoreEntriesError:  # it has read some of them
                continue

    def check(self, cells: Cells) -> SourceLog:
        """The log inside a change that `update` makes. Entries do not change: those that were read once count, also
        where the change is made again.
        """
        log = SourceLog(cells, self._table)
        if log.next != self._following:
            records, end = log.since(self._following, _MOST_POSTED)
            if any(row_identity(key_values(key)) in self._identities for key, _ in records):
                raise PostedMeanwhileError
            self._following = end
            if end < log.next:
                raise _MoreEntriesError
        return log

    def append(self, keys: Sequence[bytes], values: Sequence[Inside]) -> None:
        """Add rows of the batch, each of another key, with their values in inside form, without nulls.

        Raises:
            PostedMeanwhileError: some were posted meanwhile.
            EngineUnavailableError, StorageError: the store cannot be written.
        """
        begin, end = self.update(partial(self._append, keys=keys, values=values))
        self._is_divided |= self.own is not None and self.own[1] != begin
        self.own = (begin if self.own is None else self.own[0], end)
        self._following = end

    def mark_after(self, mark: int) -> int:
        """Up to which entry a table holds the rows, which held them up to `mark`, once it has those of the batch."""
        if self.own is None or self._is_divided or mark != self.own[0]:
            return mark
        return self.own[1]

    def _append(self, cells: Cells, keys: Sequence[bytes], values: Sequence[Inside]) -> tuple[int, int]:
        log = self.check(cells)
        begin = log.next
        log.append_new(keys, values)
        log.save()
        return begin, log.next

"""State rows against the hashes that events carry: which rows were edited, deleted or inserted outside the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import attrgetter

from cumulant.core.events import Break
from cumulant.core.ids import digest
from cumulant.ports.journal import RowHashes, RowWrite


class RowHashCheck:
    """One comparison of all rows.

    Args:
        hashes: the recorded writes, and the rows as they are.
        digests: by event, the digest of rows that it carries.
        last: the newest event that was read; what newer ones carry is not compared with them.
    """

    def __init__(self, hashes: RowHashes, digests: Mapping[int, str], last: int) -> None:
        self._hashes = hashes
        self._digests = digests
        self._last = last
        self._newest: dict[tuple[str, str], RowWrite] = {}
        #: how many rows were compared, and how many of their hashes no event carries yet
        self.count = self.waiting = 0

    def breaks(self) -> Iterator[Break]:
        yield from self._records()
        for row in self._hashes.rows:
            self.count += 1
            recorded = self._newest.pop((row.kind, row.key), None)
            problem = _difference(row, recorded)
            if problem:
                yield Break(recorded.event if recorded else 0, problem, row=_name(row))
        for missing in self._newest.values():
            yield Break(
                missing.event, f"is missing: {_source(missing)} has version {missing.version}", row=_name(missing)
            )

    def _records(self) -> Iterator[Break]:
        missing = dict(self._digests)
        for event, group in groupby(self._hashes.writes, attrgetter("event")):
            writes = list(group)
            if not 0 <= event <= self._hashes.head:
                yield Break(
                    event, "is named by records of state rows, and there is no such event", row=_name(writes[0])
                )
                continue
            if event == 0:
                yield from self._wait(writes)
            self._newest.update({(row.kind, row.key): row for row in writes})
            carried = missing.pop(event, None)
            if 0 < event <= self._last and carried != digest([(w.kind, w.key, w.version, w.hash) for w in writes]):
                yield Break(event, "carries another digest than that of the recorded hashes of its state rows")
        for event in missing:
            yield Break(event, "carries a digest of state rows whose recorded hashes are missing")

    def _wait(self, writes: list[RowWrite]) -> Iterator[Break]:
        """Each write has a version of its own: one that waits is newer than what an event carries."""
        self.waiting = len(writes)
        for row in writes:
            bound = self._newest.get((row.kind, row.key))
            if bound is not None and row.version <= bound.version:
                yield Break(bound.event, f"is older than the record of version {row.version}", row=_name(row))


def _difference(row: RowWrite, recorded: RowWrite | None) -> str | None:
    if recorded is None:
        return "was inserted: no event and no record of a write has it"
    if row.version != recorded.version:
        return f"has version {row.version}: {_source(recorded)} has version {recorded.version}"
    if row.hash != recorded.hash:
        return f"has another content than version {row.version} in {_source(recorded)}"
    return None


def _source(write: RowWrite) -> str:
    return f"event {write.event}" if write.event else "the record of its last write"


def _name(row: RowWrite) -> str:
    return f"state row {row.kind} {row.key}"

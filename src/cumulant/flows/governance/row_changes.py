"""Which state rows each event covers, with their hashes before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, takewhile
from operator import attrgetter
from tempfile import TemporaryFile
from typing import BinaryIO, cast

import msgspec

from cumulant.core.events import Event
from cumulant.ports.journal import HashedRows, Journal, RowWrite


class RowChange(msgspec.Struct, frozen=True, kw_only=True):
    """One write or deletion of a row. `before` is None for its first version."""

    kind: str
    key: str
    version: int
    before: str | None
    after: str


def events_with_changes(journal: Journal, events: Iterable[Event]) -> Iterator[tuple[Event, list[RowChange]]]:
    """Events in their order up to the newest one of now, each with the rows whose hashes are in its digest.

    A journal without hashes of rows has no changes to show. Its hashes are put aside first: whoever takes the events
    may be slow, and the journal must not hold a transaction meanwhile.
    """
    if not isinstance(journal, HashedRows):
        yield from ((event, []) for event in events)
        return
    with TemporaryFile(prefix="cumulant-hashes-") as stream:
        spool = cast("BinaryIO", stream)
        with journal.row_hashes() as hashes:
            head = None if hashes is None else hashes.head
            for write in () if hashes is None else hashes.writes:
                spool.write(msgspec.json.encode(write) + b"\n")
        spool.seek(0)
        known = events if head is None else takewhile(lambda event: event.seq <= head, events)
        yield from _joined(known, (msgspec.json.decode(line, type=RowWrite) for line in spool))


def _joined(events: Iterable[Event], writes: Iterable[RowWrite]) -> Iterator[tuple[Event, list[RowChange]]]:
    groups = groupby(writes, attrgetter("event"))
    newest: dict[tuple[str, str], str] = {}
    pending: tuple[int, list[RowChange]] | None = None
    for event in events:
        while pending is None or 0 < pending[0] < event.seq:
            number, group = next(groups, (0, iter(())))
            pending = number, [_change(write, newest) for write in group]
        yield event, pending[1] if pending[0] == event.seq else []


def _change(write: RowWrite, newest: dict[tuple[str, str], str]) -> RowChange:
    place = write.kind, write.key
    before, newest[place] = newest.get(place), write.hash
    return RowChange(kind=write.kind, key=write.key, version=write.version, before=before, after=write.hash)

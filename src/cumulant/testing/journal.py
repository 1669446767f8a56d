"""A journal in memory: obviously right, for tests and as the oracle of other journals."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.events import GENESIS, Actor, Event, Fact
from cumulant.core.scope import Scope
from cumulant.ports.journal import ChainHead, Row, RowVersion
from cumulant.ports.journal_store import fits_kinds, next_event, row_changed

_Rows = dict[tuple[str, str], Row]
_Versions = dict[tuple[str, str], int]


class MemoryJournal:
    """Writers wait for each other; a transaction works on copies, which replace the originals when it ends.

    It holds one scope: another client is another journal.
    """

    def __init__(self, *, clock: Clock | None = None, scope: Scope | None = None) -> None:
        self._clock = clock or SystemClock()
        self._scope = scope or Scope()
        self._writer = threading.Lock()
        self._written = threading.Condition()
        self._rows: _Rows = {}
        self._versions: _Versions = {}
        self._events: list[Event] = []
        self._cursors: dict[str, int] = {}
        self._reporting = threading.Lock()
        self._reports = MemoryTransaction({}, {}, [], (self._scope, Actor("service:report"), None), self._clock)

    @contextmanager
    def transaction(self, *, actor: Actor, run: str | None = None) -> Iterator[MemoryTransaction]:
        with self._writer:
            transaction = MemoryTransaction(
                dict(self._rows), dict(self._versions), list(self._events), (self._scope, actor, run), self._clock
            )
            yield transaction
            self._rows, self._versions = transaction.state, transaction.versions
            with self._written:
                self._events = transaction.events
                self._written.notify_all()

    def get(self, kind: str, key: str) -> Row | None:
        return self._rows.get((kind, key))

    def rows(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[Row]:
        if not descending:
            return _select(self._rows, kind, prefix, after, limit)
        chosen = _select(self._rows, kind, prefix, None, None)[::-1]
        return [row for row in chosen if after is None or row.key < after][:limit]

    def row_versions(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[RowVersion]:
        rows = self.rows(kind, prefix, after=after, limit=limit, descending=descending)
        return [RowVersion(row.key, row.version, row.updated) for row in rows]

    def count(self, kind: str, prefix: str = "") -> int:
        return len(_select(self._rows, kind, prefix, None, None))

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        kinds: Sequence[str] = (),
        run: str | None = None,
    ) -> Iterator[Event]:
        events = [
            event
            for event in self._events[after : None if before is None else max(0, before - 1)]
            if fits_kinds(event.kind, kinds) and (run is None or event.run == run)
        ]
        return iter(events if limit is None else events[:limit])

    def head(self) -> ChainHead:
        return ChainHead(self._events[-1].seq, self._events[-1].hash) if self._events else ChainHead(0, GENESIS)

    def cursor(self, subscriber: str) -> int:
        return self._cursors.get(subscriber, 0)

    def advance(self, subscriber: str, seq: int) -> None:
        self._cursors[subscriber] = max(seq, self.cursor(subscriber))

    def report(self, kind: str, key: str, value: dict[str, object], *, expect: int) -> Row:
        with self._reporting:
            return self._reports.put(kind, key, value, expect=expect)

    def reports(self, kind: str) -> list[Row]:
        with self._reporting:
            return self._reports.rows(kind)

    def remove_report(self, kind: str, key: str, *, expect: int) -> bool:
        with self._reporting:
            row = self._reports.get(kind, key)
            if row is None or row.version != expect:
                return False
            self._reports.delete(kind, key)
            return True

    def wait(self, after: int, seconds: float) -> bool:
        with self._written:
            return self._written.wait_for(lambda: len(self._events) > after, seconds)

    def close(self) -> None:
        """Nothing to close; what was written stays."""


class MemoryTransaction:
    """One open write transaction of a MemoryJournal."""

    def __init__(
        self,
        state: _Rows,
        versions: _Versions,
        events: list[Event],
        origin: tuple[Scope, Actor, str | None],
        clock: Clock,
    ) -> None:
        self.state = state
        self.versions = versions
        self.events = events
        self._scope, self._actor, self._run = origin
        self._clock = clock

    def get(self, kind: str, key: str) -> Row | None:
        return self.state.get((kind, key))

    def rows(self, kind: str, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> list[Row]:
        return _select(self.state, kind, prefix, after, limit)

    def put(self, kind: str, key: str, value: dict[str, object], *, expect: int | None = None) -> Row:
        place = (kind, key)
        stands = self.state[place].version if place in self.state else 0
        if expect is not None and expect != stands:
            raise row_changed(kind, key, version=stands, expected=expect)
        version = self.versions[place] = self.versions.get(place, 0) + 1
        copy = msgspec.json.decode(msgspec.json.encode(value))
        row = self.state[place] = Row(kind, key, copy, version, self._clock.now())
        return row

    def delete(self, kind: str, key: str) -> None:
        if self.state.pop((kind, key), None) is not None:
            self.versions[kind, key] += 1

    def emit(self, fact: Fact, *, cause: str | None = None) -> Event:
        last = self.events[-1] if self.events else None
        event = next_event(
            ChainHead(last.seq, last.hash) if last else ChainHead(0, GENESIS),
            fact,
            actor=self._actor,
            scope=self._scope,
            run=self._run,
            cause=cause,
            time=self._clock.now(),
        )
        self.events.append(event)
        return event


def _select(rows: _Rows, kind: str, prefix: str, after: str | None, limit: int | None) -> list[Row]:
    selected = [
        row
        for place, row in sorted(rows.items())
        if place[0] == kind and place[1].startswith(prefix) and (after is None or place[1] > after)
    ]
    return selected[:limit]

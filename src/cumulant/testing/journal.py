"""A journal in memory: obviously right, for tests and as the oracle of other journals."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import GENESIS, Actor, Event, Fact
from cumulant.ports.journal import ChainHead, Row

_Rows = dict[tuple[str, str], Row]
_Versions = dict[tuple[str, str], int]


class MemoryJournal:
    """Writers wait for each other; a transaction works on copies, which replace the originals when it ends."""

    def __init__(self, *, clock: Clock | None = None, project: str = "default") -> None:
        self._clock = clock or SystemClock()
        self._project = project
        self._writer = threading.Lock()
        self._rows: _Rows = {}
        self._versions: _Versions = {}
        self._events: list[Event] = []
        self._cursors: dict[str, int] = {}

    @contextmanager
    def transaction(self, *, actor: Actor, run: str | None = None) -> Iterator[MemoryTransaction]:
        with self._writer:
            transaction = MemoryTransaction(
                dict(self._rows), dict(self._versions), list(self._events), self._envelope(actor, run), self._clock
            )
            yield transaction
            self._rows, self._versions = transaction.state, transaction.versions
            self._events = transaction.events

    def get(self, kind: str, key: str) -> Row | None:
        return self._rows.get((kind, key))

    def rows(self, kind: str, prefix: str = "") -> list[Row]:
        return _select(self._rows, kind, prefix)

    def events(
        self, *, after: int = 0, limit: int | None = None, kinds: Sequence[str] = (), run: str | None = None
    ) -> Iterator[Event]:
        events = [
            event
            for event in self._events[after:]
            if (not kinds or event.kind in kinds) and (run is None or event.run == run)
        ]
        return iter(events if limit is None else events[:limit])

    def head(self) -> ChainHead:
        return ChainHead(self._events[-1].seq, self._events[-1].hash) if self._events else ChainHead(0, GENESIS)

    def cursor(self, subscriber: str) -> int:
        return self._cursors.get(subscriber, 0)

    def advance(self, subscriber: str, seq: int) -> None:
        self._cursors[subscriber] = max(seq, self.cursor(subscriber))

    def close(self) -> None:
        """Nothing to close; what was written stays."""

    def _envelope(self, actor: Actor, run: str | None) -> Event:
        return Event(
            seq=0,
            id="",
            time=self._clock.now(),
            kind="",
            schema=1,
            actor=actor.name,
            reason=actor.reason,
            project=self._project,
            run=run,
            cause=None,
            data={},
            previous="",
        )


class MemoryTransaction:
    """One open write transaction of a MemoryJournal."""

    def __init__(self, state: _Rows, versions: _Versions, events: list[Event], envelope: Event, clock: Clock) -> None:
        self.state = state
        self.versions = versions
        self.events = events
        self._envelope = envelope
        self._clock = clock

    def get(self, kind: str, key: str) -> Row | None:
        return self.state.get((kind, key))

    def rows(self, kind: str, prefix: str = "") -> list[Row]:
        return _select(self.state, kind, prefix)

    def put(self, kind: str, key: str, value: dict[str, object], *, expect: int | None = None) -> Row:
        place = (kind, key)
        stands = self.state[place].version if place in self.state else 0
        if expect is not None and expect != stands:
            raise LeaseHeldError(f"{kind} {key} was changed by someone else", subject=key)
        version = self.versions[place] = self.versions.get(place, 0) + 1
        copy = msgspec.json.decode(msgspec.json.encode(value))
        row = self.state[place] = Row(kind, key, copy, version, self._clock.now())
        return row

    def delete(self, kind: str, key: str) -> None:
        if self.state.pop((kind, key), None) is not None:
            self.versions[kind, key] += 1

    def emit(self, fact: Fact, *, cause: str | None = None) -> Event:
        event = msgspec.structs.replace(
            self._envelope,
            seq=len(self.events) + 1,
            id=uuid.uuid4().hex,
            time=self._clock.now(),
            kind=fact.kind,
            schema=fact.schema,
            cause=cause,
            data=msgspec.json.decode(msgspec.json.encode(fact)),
            previous=self.events[-1].hash if self.events else GENESIS,
        ).sealed()
        self.events.append(event)
        return event


def _select(rows: _Rows, kind: str, prefix: str) -> list[Row]:
    return [row for place, row in sorted(rows.items()) if place[0] == kind and place[1].startswith(prefix)]

"""Chains of events in a project's SQLite journal, and their forgery by somebody who can write its files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Self

import msgspec

from cumulant.core.events import GENESIS, Actor, Event, Fact


class Happened(Fact, frozen=True, kw_only=True):
    kind = "test.happened"
    number: int


def add_events(project, count, *, rows=True):
    """As many events, each in a transaction, which writes a row."""
    for number in range(count):
        with project.journal().transaction(actor=Actor("user:ada")) as transaction:
            if rows:
                transaction.put("test", f"row-{number % 4}", {"number": number})
            transaction.emit(Happened(number=number))


class Chain:
    """The stored events of a project, to be changed in a block. At its end the database, its counter and the head beside
    it have what is in `events`, each under its place; records of rows whose event is gone go with it.
    """

    def __init__(self, project) -> None:
        self._path = project.state / "journal.db"
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        with closing(sqlite3.connect(self._path)) as connection:
            self._scope = connection.execute("SELECT scope FROM chain").fetchone()[0]
            found = connection.execute("SELECT envelope FROM events WHERE scope = ? ORDER BY seq", (self._scope,))
            self.events = [msgspec.json.decode(envelope, type=Event) for (envelope,) in found]
        return self

    def rehash(self, first: int) -> None:
        """Make the chain anew from that place on: numbers, predecessors and hashes."""
        previous = self.events[first - 1].hash if first else GENESIS
        for place in range(first, len(self.events)):
            event = msgspec.structs.replace(self.events[place], seq=place + 1, previous=previous).sealed()
            self.events[place], previous = event, event.hash

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            return
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("DELETE FROM events")
            places = enumerate(self.events, 1)
            rows = [(self._scope, place, event.kind, event.run, msgspec.json.encode(event)) for place, event in places]
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
            count, last = len(rows), self.events[-1]
            connection.execute("UPDATE chain SET seq = ?, hash = ?", (count, last.hash))
            _rewind_rows(connection, count)
        head = self._path.with_name("journal.db.head")
        head.write_text(f"{count:020d} {last.hash} {self._scope}\n")


def _rewind_rows(connection, last) -> None:
    """Rows as they were at an event, without what only later events have: their records, and rows that differ."""
    connection.execute("DELETE FROM row_writes WHERE event > ? OR event = 0", (last,))
    connection.execute(
        "DELETE FROM state WHERE NOT EXISTS (SELECT 1 FROM row_writes w WHERE w.scope = state.scope AND w.kind = state.kind"
        " AND w.key = state.key AND w.version = state.version)"
    )

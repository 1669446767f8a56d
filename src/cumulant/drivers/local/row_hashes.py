"""Hashes of state rows in the journal's database: one record per write, and their digest in an event.

A record with event 0 waits for the next event. For a journal that is older than this table, the records are created
once, from its current rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cumulant.core.ids import digest
from cumulant.ports.journal import RowHashes, RowWrite
from cumulant.ports.journal_store import row_hash

SCHEMA = """
CREATE TABLE row_writes (
    id INTEGER PRIMARY KEY, scope TEXT NOT NULL, event INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    version INTEGER NOT NULL, hash TEXT NOT NULL
);
CREATE UNIQUE INDEX row_writes_waiting ON row_writes (scope, kind, key) WHERE event = 0
"""

_FORMAT_2 = """
CREATE TABLE row_writes (
    id INTEGER PRIMARY KEY, event INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    version INTEGER NOT NULL, hash TEXT NOT NULL
);
CREATE UNIQUE INDEX row_writes_waiting ON row_writes (kind, key) WHERE event = 0
"""
#: a value that is no event number was not written by the journal
_EVENT = "CASE typeof(event) WHEN 'integer' THEN event ELSE -1 END"
_RECORD = (
    "INSERT INTO row_writes (scope, event, kind, key, version, hash) VALUES (?, 0, ?, ?, ?, ?)"
    " ON CONFLICT (scope, kind, key) WHERE event = 0 DO UPDATE SET version = excluded.version, hash = excluded.hash"
)


def record(connection: sqlite3.Connection, scope: str, written: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    connection.executemany(_RECORD, [(scope, *place, *state) for place, state in written.items()])


def bind(connection: sqlite3.Connection, scope: str, event: int) -> str | None:
    """Assign the waiting records to an event; returns their digest, None if there are none."""
    waiting = connection.execute(
        "SELECT kind, key, version, hash FROM row_writes WHERE scope = ? AND event = 0 ORDER BY id", (scope,)
    ).fetchall()
    if not waiting:
        return None
    connection.execute("UPDATE row_writes SET event = ? WHERE scope = ? AND event = 0", (event, scope))
    return digest(waiting)


def upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade from format 1, which had no records: the current rows are recorded."""
    for statement in _FORMAT_2.split(";"):
        connection.execute(statement)
    for row in connection.execute("SELECT kind, key, version, updated, value FROM state").fetchall():
        connection.execute(
            "INSERT INTO row_writes (event, kind, key, version, hash) VALUES (0, ?, ?, ?, ?)",
            (*row[:3], row_hash(*row[2:])),
        )


@contextmanager
def snapshot(connection: sqlite3.Connection, scope: str) -> Iterator[RowHashes | None]:
    """A consistent snapshot of records and rows, however long it is read."""
    connection.execute("BEGIN")
    try:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'row_writes'").fetchone()
        head = connection.execute("SELECT seq FROM chain WHERE scope = ?", (scope,)).fetchone()
        last = 0 if head is None else head[0]
        yield RowHashes(_writes(connection, scope), _rows(connection, scope), last) if known else None
    finally:
        connection.execute("COMMIT")


def _writes(connection: sqlite3.Connection, scope: str) -> Iterator[RowWrite]:
    # Waiting records come last, whatever their id: they are newer than all records of events.
    for row in connection.execute(
        f"SELECT {_EVENT} AS number, kind, key, version, hash FROM row_writes WHERE scope = ?"  # noqa: S608 - a constant
        " ORDER BY number = 0, number, id",
        (scope,),
    ):
        yield RowWrite(*row)


def _rows(connection: sqlite3.Connection, scope: str) -> Iterator[RowWrite]:
    for kind, key, version, updated, value in connection.execute(
        "SELECT kind, key, version, updated, value FROM state WHERE scope = ? ORDER BY kind, key", (scope,)
    ):
        yield RowWrite(0, kind, key, version, row_hash(version, updated, value))

"""Hashes of state rows in the journal's database: one record per write, and their digest in an event.

A record with event 0 waits for the next event. For a journal that is older than this table, the records are created
once, from its current rows.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cumulant.core.ids import digest
from cumulant.ports.journal import RowHashes, RowWrite

SCHEMA = """
CREATE TABLE row_writes (
    id INTEGER PRIMARY KEY, event INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    version INTEGER NOT NULL, hash TEXT NOT NULL
);
CREATE UNIQUE INDEX row_writes_waiting ON row_writes (kind, key) WHERE event = 0
"""

#: a value that is no event number was not written by the journal
_EVENT = "CASE typeof(event) WHEN 'integer' THEN event ELSE -1 END"
_RECORD = (
    "INSERT INTO row_writes (event, kind, key, version, hash) VALUES (0, ?, ?, ?, ?)"
    " ON CONFLICT (kind, key) WHERE event = 0 DO UPDATE SET version = excluded.version, hash = excluded.hash"
)


def hash_of(version: int, updated: int, value: object) -> str:
    """The hash of a row's content; `value` is bytes, None for a deleted row.

    A row that was edited from outside may hold values of any type: another type gives another hash, whatever the text.
    """
    head = f"{version!r} {updated!r} {'-' if value is None else '+'}"
    content = value if isinstance(value, bytes) else b"" if value is None else f" {value!r}".encode()
    return hashlib.sha256(head.encode() + content).hexdigest()


def record(connection: sqlite3.Connection, written: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    connection.executemany(_RECORD, [(*place, *state) for place, state in written.items()])


def bind(connection: sqlite3.Connection, event: int) -> str | None:
    """Assign the waiting records to an event; returns their digest, None if there are none."""
    waiting = connection.execute(
        "SELECT kind, key, version, hash FROM row_writes WHERE event = 0 ORDER BY id"
    ).fetchall()
    if not waiting:
        return None
    connection.execute("UPDATE row_writes SET event = ? WHERE event = 0", (event,))
    return digest(waiting)


def upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade from format 1, which had no records: the current rows are recorded."""
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    for row in connection.execute("SELECT kind, key, version, updated, value FROM state").fetchall():
        connection.execute(_RECORD, (*row[:3], hash_of(*row[2:])))


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[RowHashes | None]:
    """A consistent snapshot of records and rows, however long it is read."""
    connection.execute("BEGIN")
    try:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'row_writes'").fetchone()
        head = connection.execute("SELECT seq FROM chain").fetchone()
        yield RowHashes(_writes(connection), _rows(connection), 0 if head is None else head[0]) if known else None
    finally:
        connection.execute("COMMIT")


def _writes(connection: sqlite3.Connection) -> Iterator[RowWrite]:
    # Waiting records come last, whatever their id: they are newer than all records of events.
    for row in connection.execute(
        f"SELECT {_EVENT} AS number, kind, key, version, hash FROM row_writes ORDER BY number = 0, number, id"  # noqa: S608
    ):
        yield RowWrite(*row)


def _rows(connection: sqlite3.Connection) -> Iterator[RowWrite]:
    for kind, key, version, updated, value in connection.execute(
        "SELECT kind, key, version, updated, value FROM state ORDER BY kind, key"
    ):
        yield RowWrite(0, kind, key, version, hash_of(version, updated, value))

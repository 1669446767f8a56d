"""Hashes of state rows in the journal's database: one record per write, and their digest in an event.

A record with event 0 waits for the next event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.ports.journal import RowHashes, RowWrite
from cumulant.ports.journal_store import row_hash

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

    from cumulant.drivers.postgres.connection import LimitedConnection

_RECORD = (
    "INSERT INTO row_writes (scope, event, kind, key, version, hash)"
    " SELECT %s, 0, kind, key, version, hash"
    " FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[]) AS written (kind, key, version, hash)"
    " ON CONFLICT (scope, kind, key) WHERE event = 0 DO UPDATE SET version = excluded.version, hash = excluded.hash"
)


def record(connection: Connection, scope: str, written: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    if not written:
        return
    kinds, keys = zip(*written, strict=True)
    versions, hashes = zip(*written.values(), strict=True)
    connection.execute(_RECORD, (scope, list(kinds), list(keys), list(versions), list(hashes)))


def bind(connection: Connection, scope: str, event: int) -> Cursor:
    """Assign the waiting records to an event; they, with their number, which orders the writes."""
    return connection.execute(
        "UPDATE row_writes SET event = %s WHERE scope = %s AND event = 0 RETURNING id, kind, key, version, hash",
        (event, scope),
    )


@contextmanager
def snapshot(connection: LimitedConnection, scope: str) -> Iterator[RowHashes | None]:
    """A consistent snapshot of records and rows, however long it is read."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    known = connection.execute("SELECT to_regclass('row_writes')").fetchone()
    head = connection.execute("SELECT seq FROM chain WHERE scope = %s", (scope,)).fetchone()
    last = 0 if head is None else head[0]
    exists = known is not None and known[0] is not None
    with connection.unlimited():  # all records are sorted before the first one comes
        yield RowHashes(_writes(connection, scope), _rows(connection, scope), last) if exists else None
    connection.execute("COMMIT")


def _writes(connection: Connection, scope: str) -> Iterator[RowWrite]:
    # Waiting records come last, whatever their id: they are newer than all records of events.
    with connection.cursor("row_writes") as cursor:
        cursor.execute(
            "SELECT event, kind, key, version, hash FROM row_writes WHERE scope = %s ORDER BY event = 0, event, id",
            (scope,),
        )
        for row in cursor:
            yield RowWrite(*row)


def _rows(connection: Connection, scope: str) -> Iterator[RowWrite]:
    with connection.cursor("state_rows") as cursor:
        cursor.execute(
            "SELECT kind, key, version, updated, value FROM state WHERE scope = %s ORDER BY kind, key", (scope,)
        )
        for kind, key, version, updated, value in cursor:
            content = None if value is None else value.encode()
            yield RowWrite(0, kind, key, version, row_hash(version, updated, content))

"""The journal in a PostgreSQL database: state rows and the event chain, written in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import psycopg
from psycopg import Connection, sql

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.events import GENESIS, Actor, Event, Fact
from cumulant.core.ids import digest
from cumulant.core.scope import Scope
from cumulant.core.units import from_micros, to_micros
from cumulant.drivers.postgres import row_hashes
from cumulant.drivers.postgres.database import PostgresDatabase
from cumulant.drivers.postgres.event_rows import EventChoice, read_events
from cumulant.drivers.postgres.location import parse_database_url
from cumulant.drivers.postgres.migrations import lock_number
from cumulant.drivers.postgres.open_transaction import OpenTransaction
from cumulant.ports.journal import ChainHead, Row, RowHashes, RowVersion
from cumulant.ports.journal_store import (
    decode_value,
    encode_json,
    events_of,
    key_range,
    misfiled_events,
    next_event,
    report_key,
    row_changed,
    row_hash,
    scope_key,
)

#: seconds after which the chain is read again though no notification came
_LISTEN_SECONDS = 5.0
_SELECTED = (
    " FROM state WHERE scope = %(scope)s AND kind = %(kind)s AND value IS NOT NULL"
    " AND key >= %(first)s AND (%(beyond)s::text IS NULL OR key < %(beyond)s)"
    " AND (%(above)s::text IS NULL OR key > %(above)s)"
)
_LIMIT = " LIMIT %(limit)s"
_ROWS = f"SELECT key, value, version, updated{_SELECTED} ORDER BY key{_LIMIT}"
_LAST_ROWS = f"SELECT key, value, version, updated{_SELECTED} ORDER BY key DESC{_LIMIT}"
_COUNT = f"SELECT count(*){_SELECTED}"
_PUT = (
    "INSERT INTO state VALUES (%(scope)s, %(kind)s, %(key)s, 1, %(updated)s, %(value)s)"
    " ON CONFLICT (scope, kind, key) DO UPDATE"
    " SET version = state.version + 1, updated = excluded.updated, value = excluded.value"
    "{condition} RETURNING version"
)
_ANY, _ABSENT = _PUT.format(condition=""), _PUT.format(condition=" WHERE state.value IS NULL")
_REPLACE = (
    "UPDATE state SET version = version + 1, updated = %(updated)s, value = %(value)s"
    " WHERE scope = %(scope)s AND kind = %(kind)s AND key = %(key)s AND value IS NOT NULL"
    "{condition} RETURNING version"
)
_PRESENT, _VERSION = _REPLACE.format(condition=""), _REPLACE.format(condition=" AND version = %(expect)s")


class PostgresJournal:
    """A journal that processes on several machines share, each client for one scope.

    `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`; every option of libpq may follow, and `schema`. The tables are made
    and upgraded on first use. Writers of a scope are serialised by an advisory lock. Times are those of the clients:
    the server's clock decides nothing. The hash of each written row enters the last event of its transaction, or the
    next event if its transaction has none.

    Raises:
        UsageError: the URL, or what the server refuses for good: user, password, database, encryption.
        EngineUnavailableError: the server does not answer, or another process has been writing for a minute.
        StorageError: the server's disk is full, or the role may not do it.
    """

    def __init__(self, url: str, *, scope: Scope | None = None, clock: Clock | None = None, wait: float = 60.0) -> None:
        self._scope = scope or Scope()
        self._key = scope_key(self._scope)
        self._clock = clock or SystemClock()
        location = parse_database_url(url)
        self._database = PostgresDatabase(location, wait=wait)
        self._lock = lock_number(f"cumulant journal {location.schema} {self._key}")
        self._channel = f"cumulant_{self._lock & (2**64 - 1):016x}"

    @contextmanager
    def transaction(self, *, actor: Actor, run: str | None = None) -> Iterator[PostgresTransaction]:
        def is_stored(connection: Connection) -> bool:
            return opened.is_stored(connection)

        with self._database.write(self._lock, is_stored=is_stored) as transaction:
            opened = PostgresTransaction(transaction, actor=actor, run=run, scope=self._scope, clock=self._clock)
            yield opened
            opened.flush(self._channel)

    def get(self, kind: str, key: str) -> Row | None:
        return self._database.read(lambda connection: _get(connection, self._key, kind, key))

    def rows(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[Row]:
        return self._database.read(
            lambda connection: _rows(
                connection, self._key, kind, prefix, after=after, limit=limit, descending=descending
            )
        )

    def row_versions(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[RowVersion]:
        keys = key_range(prefix, after, descending=descending)
        values = {"scope": self._key, "kind": kind, "limit": limit, **keys._asdict()}
        statement = f"SELECT key, version, updated{_SELECTED} ORDER BY key {'DESC' if descending else 'ASC'}{_LIMIT}"
        rows = self._database.read(lambda connection: connection.execute(statement, values).fetchall())
        return [RowVersion(key, version, from_micros(updated)) for key, version, updated in rows]

    def count(self, kind: str, prefix: str = "") -> int:
        values = {"scope": self._key, "kind": kind, **key_range(prefix, None, descending=False)._asdict()}
        rows = self._database.read(lambda connection: connection.execute(_COUNT, values).fetchall())
        return int(rows[0][0])

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        kinds: Sequence[str] = (),
        run: str | None = None,
    ) -> Iterator[Event]:
        return events_of(partial(self._page, EventChoice(kinds, run, before)), after=after, limit=limit)

    def head(self) -> ChainHead:
        return self._database.read(lambda connection: _head(connection, self._key))

    def wait(self, after: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        if self.head().seq > after:
            return True
        while seconds > 0:
            connection = self._database.acquire()
            try:
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                return self._listen(connection, after, deadline)
            except psycopg.Error as error:
                if not connection.closed or time.monotonic() > deadline:
                    raise self._database.explain(error) from error
            finally:
                connection.close()  # with what it listens to
        return False

    def _listen(self, connection: Connection, after: int, deadline: float) -> bool:
        while self.head().seq <= after:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            for _ in connection.notifies(timeout=min(remaining, _LISTEN_SECONDS), stop_after=1):
                pass
        return True

    def cursor(self, subscriber: str) -> int:
        def read(connection: Connection) -> int:
            row = connection.execute(
                "SELECT seq FROM cursors WHERE scope = %s AND subscriber = %s", (self._key, subscriber)
            ).fetchone()
            return row[0] if row else 0

        return self._database.read(read)

    def advance(self, subscriber: str, seq: int) -> None:
        self._database.read(  # which may be repeated: done twice, it is done once
            lambda connection: connection.execute(
                "INSERT INTO cursors VALUES (%s, %s, %s)"
                " ON CONFLICT (scope, subscriber) DO UPDATE SET seq = greatest(cursors.seq, excluded.seq)",
                (self._key, subscriber, seq),
            )
        )

    def report(self, kind: str, key: str, value: dict[str, object], *, expect: int) -> Row:
        encoded, updated = encode_json(value), to_micros(self._clock.now())
        values = _values(report_key(self._scope), (kind, key), updated, encoded, expect)
        statement = _VERSION if expect else _ABSENT
        written = self._database.read(lambda connection: connection.execute(statement, values).fetchone())
        if written is None:
            present = self._database.read(lambda connection: _get(connection, report_key(self._scope), kind, key))
            raise row_changed(kind, key, version=present.version if present else 0, expected=expect)
        return Row(kind, key, decode_value(encoded), written[0], from_micros(updated))

    def reports(self, kind: str) -> list[Row]:
        return self._database.read(
            lambda connection: _rows(connection, report_key(self._scope), kind, "", after=None, limit=None)
        )

    def remove_report(self, kind: str, key: str, *, expect: int) -> bool:
        values = _values(report_key(self._scope), (kind, key), to_micros(self._clock.now()), None, expect)
        return self._database.read(lambda connection: connection.execute(_VERSION, values).fetchone()) is not None

    def witness(self) -> ChainHead | None:
        """None: who may write the database may write all of it. `cumulant events verify --head` takes one that was
        kept elsewhere.
        """
        return None

    def misfiled(self) -> Iterator[int]:
        return misfiled_events(partial(self._page, EventChoice()), self._scope)

    @contextmanager
    def row_hashes(self) -> Iterator[RowHashes | None]:
        connection = self._database.acquire()
        try:
            with row_hashes.snapshot(connection, self._key) as hashes:
                yield hashes
        except psycopg.Error as error:
            raise self._database.explain(error) from error
        finally:
            self._database.release(connection)

    def close(self) -> None:
        self._database.close()

    def _page(self, choice: EventChoice, after: int, limit: int) -> list[tuple[Any, ...]]:
        return self._database.read(lambda connection: read_events(connection, self._key, choice, after, limit))


class PostgresTransaction:
    """One open write transaction of a PostgresJournal. Events are written when it ends."""

    def __init__(
        self, transaction: OpenTransaction, *, actor: Actor, run: str | None, scope: Scope, clock: Clock
    ) -> None:
        self._transaction = transaction
        self._actor = actor
        self._run = run
        self._scope = scope
        self._key = scope_key(scope)
        self._clock = clock
        self._events: list[Event] = []
        self._written: dict[tuple[str, str], tuple[int, str]] = {}

    def get(self, kind: str, key: str) -> Row | None:
        return self._transaction.run(lambda connection: _get(connection, self._key, kind, key))

    def rows(self, kind: str, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> list[Row]:
        return self._transaction.run(
            lambda connection: _rows(connection, self._key, kind, prefix, after=after, limit=limit)
        )

    def put(self, kind: str, key: str, value: dict[str, object], *, expect: int | None = None) -> Row:
        encoded, updated = encode_json(value), to_micros(self._clock.now())
        statement = _ANY if expect is None else _ABSENT if expect == 0 else _VERSION
        version = self._write(statement, (kind, key), updated, encoded, expect)
        if version is None:
            row = self.get(kind, key)
            raise row_changed(kind, key, version=row.version if row else 0, expected=expect or 0)
        return Row(kind, key, decode_value(encoded), version, from_micros(updated))

    def delete(self, kind: str, key: str) -> None:
        self._write(_PRESENT, (kind, key), to_micros(self._clock.now()), None, None)

    def emit(self, fact: Fact, *, cause: str | None = None) -> Event:
        last = self._events[-1] if self._events else None
        event = next_event(
            ChainHead(last.seq, last.hash) if last else self._transaction.run(lambda opened: _head(opened, self._key)),
            fact,
            actor=self._actor,
            scope=self._scope,
            run=self._run,
            cause=cause,
            time=self._clock.now(),
        )
        self._events.append(event)
        return event

    def flush(self, channel: str) -> None:
        """Write the events, and the hashes of the rows, whose digest enters the last event; notify who waits."""
        if not self._events:
            self._transaction.run(lambda connection: row_hashes.record(connection, self._key, self._written))
            return
        if bound := self._transaction.run(self._bind_rows):
            self._events[-1] = msgspec.structs.replace(self._events[-1], rows=digest(bound)).sealed()
        self._transaction.run(lambda connection: self._append_events(connection, channel))

    def _bind_rows(self, connection: Connection) -> list[tuple[Any, ...]]:
        """Assign the hashes of written rows to the last event; they, in the order of their writes."""
        with connection.pipeline():  # one message to the server
            row_hashes.record(connection, self._key, self._written)
            waiting = row_hashes.bind(connection, self._key, self._events[-1].seq)
        return [row[1:] for row in sorted(waiting.fetchall())]

    def _append_events(self, connection: Connection, channel: str) -> None:
        last = self._events[-1]
        with connection.pipeline():
            for event in self._events:
                connection.execute(
                    "INSERT INTO events VALUES (%s, %s, %s, %s, %s)",
                    (self._key, event.seq, event.kind, event.run, encode_json(event).decode()),
                )
            connection.execute(
                "INSERT INTO chain VALUES (%s, %s, %s)"
                " ON CONFLICT (scope) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
                (self._key, last.seq, last.hash),
            )
            connection.execute(sql.SQL("NOTIFY {}").format(sql.Identifier(channel)))

    def is_stored(self, connection: Connection) -> bool:
        """Whether what this transaction wrote is there, as another connection sees it.

        Rows that were written again since say no more than that they may have been.
        """
        if self._events:
            last = self._events[-1]
            values = (self._key, last.seq, encode_json(last).decode())
            query = "SELECT 1 FROM events WHERE scope = %s AND seq = %s AND envelope = %s"
            return connection.execute(query, values).fetchone() is not None
        for (kind, key), (version, written) in self._written.items():
            query = "SELECT version, updated, value FROM state WHERE scope = %s AND kind = %s AND key = %s"
            row = connection.execute(query, (self._key, kind, key)).fetchone()
            if row is None or row[0] < version:
                return False
            if row[0] == version:
                return row_hash(version, row[1], None if row[2] is None else row[2].encode()) == written
        return True

    def _write(
        self, statement: str, row: tuple[str, str], updated: int, encoded: bytes | None, expect: int | None
    ) -> int | None:
        """The row's new version; None where the statement's condition does not hold."""
        values = _values(self._key, row, updated, encoded, expect)
        written = self._transaction.run(lambda connection: connection.execute(statement, values).fetchone())
        if written is None:
            return None
        version: int = written[0]
        self._written[row] = version, row_hash(version, updated, encoded)
        return version


def _values(
    scope: str, row: tuple[str, str], updated: int, encoded: bytes | None, expect: int | None
) -> dict[str, object]:
    """The values of a statement that writes a row; without content it is removed."""
    value = None if encoded is None else encoded.decode()
    return {"scope": scope, "kind": row[0], "key": row[1], "updated": updated, "value": value, "expect": expect}


def _get(connection: Connection, scope: str, kind: str, key: str) -> Row | None:
    row = connection.execute(
        "SELECT key, value, version, updated FROM state"
        " WHERE scope = %s AND kind = %s AND key = %s AND value IS NOT NULL",
        (scope, kind, key),
    ).fetchone()
    return _row(kind, row) if row else None


def _rows(
    connection: Connection,
    scope: str,
    kind: str,
    prefix: str,
    *,
    after: str | None,
    limit: int | None,
    descending: bool = False,
) -> list[Row]:
    keys = key_range(prefix, after, descending=descending)
    values = {"scope": scope, "kind": kind, "limit": limit, **keys._asdict()}
    statement = _LAST_ROWS if descending else _ROWS
    return [_row(kind, row) for row in connection.execute(statement, values).fetchall()]


def _row(kind: str, columns: tuple[Any, ...]) -> Row:
    key, value, version, updated = columns
    return Row(kind, key, decode_value(value), version, from_micros(updated))


def _head(connection: Connection, scope: str) -> ChainHead:
    row = connection.execute("SELECT seq, hash FROM chain WHERE scope = %s", (scope,)).fetchone()
    return ChainHead(*row) if row else ChainHead(0, GENESIS)

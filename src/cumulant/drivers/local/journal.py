"""The journal in one SQLite file: state rows and the event chain, written in one transaction."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import IntegrityError, StorageError, UsageError
from cumulant.core.events import GENESIS, Actor, Event, Fact
from cumulant.core.scope import Scope
from cumulant.core.units import to_micros
from cumulant.drivers.local import journal_rows, row_hashes
from cumulant.drivers.local.chain_heads import advance_head, read_head
from cumulant.drivers.local.location import locate
from cumulant.drivers.local.sqlite import Database
from cumulant.ports.journal import ChainHead, Row, RowHashes, RowVersion
from cumulant.ports.journal_store import (
    decode_value,
    encode_json,
    events_of,
    key_range,
    misfiled_events,
    next_event,
    read_event,
    report_key,
    row_changed,
    row_hash,
    scope_key,
)

_SCHEMA = f"""
CREATE TABLE state (
    scope TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, updated INTEGER NOT NULL,
    value BLOB, PRIMARY KEY (scope, kind, key)
) WITHOUT ROWID;
CREATE TABLE events (
    scope TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, run TEXT, envelope BLOB NOT NULL,
    PRIMARY KEY (scope, seq)
) WITHOUT ROWID;
CREATE INDEX events_by_kind ON events (scope, kind, seq);
CREATE INDEX events_by_run ON events (scope, run, seq) WHERE run IS NOT NULL;
CREATE TABLE chain (scope TEXT PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cursors (scope TEXT NOT NULL, subscriber TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (scope, subscriber)) WITHOUT ROWID;
{row_hashes.SCHEMA}
"""
#: the option that names the environment which wrote a file of an older format
_ADOPT = "adopt"
#: the folder of a project's state
_STATE = ".cumulant"
_TABLES = ("state", "events", "chain", "cursors", "row_writes")
#: of reports, which enter no event
_REPORTER = Actor("service:report")
_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.005, 0.25, 1.5


class SqliteJournal:
    """A journal shared by the threads and processes of one machine, and by the projects that name the same file.

    `sqlite:///path/journal.db`. A deleted row keeps its count of writes, so that a version is never used twice. The end
    of the chain is also stored in `journal.db.head`, beside the database. The hash of each written row enters the last
    event of its transaction, or the next event if its transaction has none. A file of an older format, which had one
    scope and named no environment, is upgraded when it is opened: to the project of its events, and to the environment
    whose state folder it is in, or that `?adopt=ENVIRONMENT` names.

    Raises:
        UsageError: the URL has another option, or the file is older and it is not known which environment wrote it.
        EngineUnavailableError: another process has held the write lock for a minute.
        StorageError: no space, a folder that cannot be written, a damaged file.
    """

    def __init__(self, url: str, *, scope: Scope | None = None, clock: Clock | None = None) -> None:
        location = locate(url)
        if unknown := [name for name in location.options if name != _ADOPT]:
            raise UsageError(
                f'the URL of the journal has an unknown option "{unknown[0]}"',
                subject="journal",
                hint="write sqlite://PATH; what is stored belongs to the project that opens it",
            )
        self._scope = scope or Scope()
        self._adopt = location.options.get(_ADOPT) or _environment_of(location.path)
        self._key = scope_key(self._scope)
        self._clock = clock or SystemClock()
        self._temporary: str | None = None
        make = partial(
            Database,
            location.path,
            schema=_SCHEMA,
            version=3,
            holds="journal",
            upgrades={1: row_hashes.upgrade, 2: self._upgrade},
        )
        self._database, self._at_once = make(), make(wait=0.0)
        self._head_file = location.path.with_name(f"{location.path.name}.head")

    @contextmanager
    def transaction(self, *, actor: Actor, run: str | None = None) -> Iterator[SqliteTransaction]:
        with self._database.write() as connection:
            opened = self._open(connection, self._key, actor, run)
            yield opened
            opened.bind()
        if opened.head is not None:
            advance_head(self._head_file, self._key, opened.head, self._hash_at)

    def get(self, kind: str, key: str) -> Row | None:
        with self._database.read() as connection:
            return journal_rows.get(connection, self._key, kind, key)

    def get_at_once(self, kind: str, key: str) -> Row | None:
        with self._at_once.read() as connection:
            return journal_rows.get(connection, self._key, kind, key)

    def rows(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[Row]:
        page = partial(journal_rows.rows, after=after, limit=limit, descending=descending)
        with self._database.read() as connection:
            return page(connection, self._key, kind, prefix)

    def row_versions(
        self,
        kind: str,
        prefix: str = "",
        *,
        after: str | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[RowVersion]:
        with self._database.read() as connection:
            place = (self._key, kind, *key_range(prefix, after, descending=descending))
            return journal_rows.versions(connection, place, limit=limit, descending=descending)

    def count(self, kind: str, prefix: str = "") -> int:
        with self._database.read() as connection:
            return journal_rows.count(connection, self._key, kind, prefix)

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        kinds: Sequence[str] = (),
        run: str | None = None,
    ) -> Iterator[Event]:
        return events_of(partial(self._page, kinds, run, before), after=after, limit=limit)

    def head(self) -> ChainHead:
        with self._database.read() as connection:
            return _head(connection, self._key)

    def wait(self, after: int, seconds: float) -> bool:
        deadline, pause = time.monotonic() + seconds, _POLL_FIRST
        while self.head().seq <= after:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(pause, remaining))
            pause = min(pause * _POLL_GROWTH, _POLL_LAST)
        return True

    def witness(self) -> ChainHead | None:
        return read_head(self._head_file, self._key)

    @contextmanager
    def row_hashes(self) -> Iterator[RowHashes | None]:
        with self._database.read() as connection, row_hashes.snapshot(connection, self._key) as hashes:
            yield hashes

    def misfiled(self) -> Iterator[int]:
        return misfiled_events(partial(self._page, (), None, None), self._scope)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        if self._adopt is None:
            name = self._scope.environment
            raise UsageError(
                "the journal is of an older format, which does not say which environment wrote it",
                subject=str(self._database.path),
                hint=f"add ?{_ADOPT}=ENVIRONMENT to the URL of the journal, such as ?{_ADOPT}={name}: that environment"
                " gets the rows and events, whichever opens the file first",
            )
        _upgrade(connection, scope=msgspec.structs.replace(self._scope, environment=self._adopt))

    def _page(
        self, kinds: Sequence[str], run: str | None, before: int | None, after: int, limit: int
    ) -> list[tuple[Any, ...]]:
        with self._database.read() as connection:
            return journal_rows.events(connection, self._key, (after, before), limit=limit, kinds=kinds, run=run)

    def _hash_at(self, seq: int) -> str | None:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT envelope FROM events WHERE scope = ? AND seq = ?", (self._key, seq)
            ).fetchone()
        try:
            return read_event(seq, row[0]).hash if row else None
        except IntegrityError:
            return None

    def cursor(self, subscriber: str) -> int:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT seq FROM cursors WHERE scope = ? AND subscriber = ?", (self._key, subscriber)
            ).fetchone()
        return row[0] if row else 0

    def advance(self, subscriber: str, seq: int) -> None:
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO cursors VALUES (?, ?, ?)"
                " ON CONFLICT (scope, subscriber) DO UPDATE SET seq = max(seq, excluded.seq)",
                (self._key, subscriber, seq),
            )

    def report(self, kind: str, key: str, value: dict[str, object], *, expect: int) -> Row:
        with self._database.write() as connection:
            return self._open(connection, report_key(self._scope), _REPORTER, None).put(kind, key, value, expect=expect)

    def reports(self, kind: str) -> list[Row]:
        with self._database.read() as connection:
            return journal_rows.rows(connection, report_key(self._scope), kind)

    def remove_report(self, kind: str, key: str, *, expect: int) -> bool:
        with self._database.write() as connection:
            opened = self._open(connection, report_key(self._scope), _REPORTER, None)
            row = opened.get(kind, key)
            present = row is not None and row.version == expect
            if present:
                opened.delete(kind, key)
        return present

    def _open(self, connection: sqlite3.Connection, key: str, actor: Actor, run: str | None) -> SqliteTransaction:
        return SqliteTransaction(connection, actor=actor, run=run, scope=self._scope, key=key, clock=self._clock)

    @property
    def frozen(self) -> bool:
        return self._database.frozen

    def aside(self) -> SqliteJournal:
        folder = tempfile.mkdtemp(prefix="cumulant-journal-")
        adopt = f"?{_ADOPT}={self._adopt}" if self._adopt else ""
        copy = SqliteJournal(f"sqlite://{folder}/journal.db{adopt}", scope=self._scope, clock=self._clock)
        copy._temporary = folder
        try:
            shutil.copyfile(self._database.path, copy._database.path)
        except OSError as error:
            copy.close()
            raise StorageError(f"the journal cannot be copied ({error.strerror})", subject=folder) from error
        return copy

    def close(self) -> None:
        self._database.close()
        self._at_once.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


class SqliteTransaction:
    """One open write transaction of a SqliteJournal; `key` is that of its rows."""

    def __init__(
        self, connection: sqlite3.Connection, *, actor: Actor, run: str | None, scope: Scope, key: str, clock: Clock
    ) -> None:
        self._connection = connection
        self._actor = actor
        self._run = run
        self._scope = scope
        self._key = key
        self._clock = clock
        self._last: Event | None = None
        self._written: dict[tuple[str, str], tuple[int, str]] = {}

    @property
    def head(self) -> ChainHead | None:
        """The end of the chain; None if this transaction has no event."""
        return ChainHead(self._last.seq, self._last.hash) if self._last else None

    def get(self, kind: str, key: str) -> Row | None:
        return journal_rows.get(self._connection, self._key, kind, key)

    def rows(self, kind: str, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> list[Row]:
        return journal_rows.rows(self._connection, self._key, kind, prefix, after=after, limit=limit)

    def put(self, kind: str, key: str, value: dict[str, object], *, expect: int | None = None) -> Row:
        version, exists = self._version(kind, key)
        if expect is not None and expect != (version if exists else 0):
            raise row_changed(kind, key, version=version, expected=expect)
        encoded, updated = encode_json(value), self._clock.now()
        self._written[kind, key] = version + 1, row_hash(version + 1, to_micros(updated), encoded)
        self._connection.execute(
            "INSERT INTO state VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (scope, kind, key)"
            " DO UPDATE SET version = excluded.version, updated = excluded.updated, value = excluded.value",
            (self._key, kind, key, version + 1, to_micros(updated), encoded),
        )
        return Row(kind, key, decode_value(encoded), version + 1, updated)

    def delete(self, kind: str, key: str) -> None:
        version, exists = self._version(kind, key)
        if not exists:
            return
        updated = to_micros(self._clock.now())
        self._written[kind, key] = version + 1, row_hash(version + 1, updated, None)
        self._connection.execute(
            "UPDATE state SET value = NULL, version = ?, updated = ? WHERE scope = ? AND kind = ? AND key = ?",
            (version + 1, updated, self._key, kind, key),
        )

    def emit(self, fact: Fact, *, cause: str | None = None) -> Event:
        event = next_event(
            self.head or _head(self._connection, self._key),
            fact,
            actor=self._actor,
            scope=self._scope,
            run=self._run,
            cause=cause,
            time=self._clock.now(),
        )
        self._connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
            (self._key, event.seq, event.kind, event.run, encode_json(event)),
        )
        self._connection.execute("INSERT OR REPLACE INTO chain VALUES (?, ?, ?)", (self._key, event.seq, event.hash))
        self._last = event
        return event

    def bind(self) -> None:
        """Record the hashes of the rows written, and put them into the transaction's last event."""
        row_hashes.record(self._connection, self._key, self._written)
        if self._last is None:
            return
        digest = row_hashes.bind(self._connection, self._key, self._last.seq)
        if digest is None:
            return
        event = self._last = msgspec.structs.replace(self._last, rows=digest).sealed()
        self._connection.execute(
            "UPDATE events SET envelope = ? WHERE scope = ? AND seq = ?", (encode_json(event), self._key, event.seq)
        )
        self._connection.execute("UPDATE chain SET hash = ? WHERE scope = ?", (event.hash, self._key))

    def _version(self, kind: str, key: str) -> tuple[int, bool]:
        row = self._connection.execute(
            "SELECT version, value IS NOT NULL FROM state WHERE scope = ? AND kind = ? AND key = ?",
            (self._key, kind, key),
        ).fetchone()
        return (row[0], bool(row[1])) if row else (0, False)


def _head(connection: sqlite3.Connection, scope: str) -> ChainHead:
    row = connection.execute("SELECT seq, hash FROM chain WHERE scope = ?", (scope,)).fetchone()
    return ChainHead(*row) if row else ChainHead(0, GENESIS)


def _environment_of(path: Path) -> str | None:
    """The environment in whose state folder a file is; None elsewhere."""
    folder = path.absolute().parent
    if folder.name == _STATE:
        return "local"
    within = folder.parent.name == "environments" and folder.parent.parent.name == _STATE
    return folder.name if within else None


def _upgrade(connection: sqlite3.Connection, *, scope: Scope) -> None:
    """Upgrade from format 2, whose file had one scope: the tenant and project of its events, whoever opens it first,
    and the environment of `scope`, which events did not name.
    """
    newest = connection.execute("SELECT seq, envelope FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    if newest is not None:
        event = read_event(*newest)
        scope = msgspec.structs.replace(scope, tenant=event.tenant, project=event.project)
    key = scope_key(scope)
    for table in _TABLES:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for index in ("events_by_kind", "events_by_run", "row_writes_waiting"):
        connection.execute(f"DROP INDEX {index}")
    for statement in filter(str.strip, _SCHEMA.split(";")):
        connection.execute(statement)
    columns = {"chain": "seq, hash", "row_writes": "id, event, kind, key, version, hash"}
    for table in _TABLES:
        listed = columns.get(table, "*")
        target = f"{table} (scope, {listed})" if table in columns else table
        connection.execute(f"INSERT INTO {target} SELECT ?, {listed} FROM old_{table}", (key,))  # noqa: S608 - constants
        connection.execute(f"DROP TABLE old_{table}")

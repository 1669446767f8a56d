"""The journal in one SQLite file: state rows and the event chain, written in one transaction."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import IntegrityError, LeaseHeldError, StorageError
from cumulant.core.events import GENESIS, Actor, Event, Fact
from cumulant.core.units import from_micros, to_micros
from cumulant.drivers.local import row_hashes
from cumulant.drivers.local.location import locate
from cumulant.drivers.local.sqlite import Database
from cumulant.ports.journal import ChainHead, Row, RowHashes

if sys.platform != "win32":
    import fcntl

_SCHEMA = f"""
CREATE TABLE state (
    kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, updated INTEGER NOT NULL, value BLOB,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, run TEXT, envelope BLOB NOT NULL);
CREATE INDEX events_by_kind ON events (kind, seq);
CREATE INDEX events_by_run ON events (run, seq) WHERE run IS NOT NULL;
CREATE TABLE chain (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE cursors (subscriber TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
{row_hashes.SCHEMA}
"""
_PAGE = 500
_HEAD_LINE = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")

_encode = msgspec.json.Encoder().encode
_decode_value = msgspec.json.Decoder(dict[str, object]).decode
_decode_event = msgspec.json.Decoder(Event).decode


class SqliteJournal:
    """A journal shared by the threads and processes of one machine.

    `sqlite:///path/journal.db?project=NAME`; `tenant` and `region` are options too and enter each event.
    A deleted row keeps its count of writes, so that a version is never used twice. The end of the chain is also stored
    in `journal.db.head`, beside the database. The hash of each written row enters the last event of its transaction, or
    the next event if its transaction has none.

    Raises:
        EngineUnavailableError: another process has held the write lock for a minute.
        StorageError: no space, a folder that cannot be written, a damaged file.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        location = locate(url)
        self._options = location.options
        self._clock = clock or SystemClock()
        self._temporary: str | None = None
        self._database = Database(
            location.path, schema=_SCHEMA, version=2, holds="journal", upgrades={1: row_hashes.upgrade}
        )
        self._head_file = location.path.with_name(f"{location.path.name}.head")

    @contextmanager
    def transaction(self, *, actor: Actor, run: str | None = None) -> Iterator[SqliteTransaction]:
        with self._database.write() as connection:
            opened = SqliteTransaction(connection, actor=actor, run=run, options=self._options, clock=self._clock)
            yield opened
            opened.bind()
        if opened.head is not None:
            _advance_head(self._head_file, opened.head, self._hash_at)

    def get(self, kind: str, key: str) -> Row | None:
        with self._database.read() as connection:
            return _get(connection, kind, key)

    def rows(self, kind: str, prefix: str = "") -> list[Row]:
        with self._database.read() as connection:
            return _rows(connection, kind, prefix)

    def events(
        self, *, after: int = 0, limit: int | None = None, kinds: Sequence[str] = (), run: str | None = None
    ) -> Iterator[Event]:
        # Page by page: a slow reader must not hold a read transaction, which would keep the WAL growing.
        remaining = limit
        while remaining is None or remaining > 0:
            size = _PAGE if remaining is None else min(remaining, _PAGE)
            with self._database.read() as connection:
                page = _events(connection, after=after, limit=size, kinds=kinds, run=run)
            yield from (_read(seq, envelope) for seq, envelope in page)
            if len(page) < size:
                return
            after = page[-1][0]
            remaining = None if remaining is None else remaining - len(page)

    def head(self) -> ChainHead:
        with self._database.read() as connection:
            return _head(connection)

    def witness(self) -> ChainHead | None:
        return _read_head(self._head_file)

    @contextmanager
    def row_hashes(self) -> Iterator[RowHashes | None]:
        with self._database.read() as connection, row_hashes.snapshot(connection) as hashes:
            yield hashes

    def misfiled(self) -> Iterator[int]:
        after = 0
        while True:
            with self._database.read() as connection:
                page = connection.execute(
                    "SELECT seq, kind, run, envelope FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, _PAGE)
                ).fetchall()
            for seq, kind, run, envelope in page:
                event = _read(seq, envelope)
                if (event.seq, event.kind, event.run) != (seq, kind, run):
                    yield seq
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def _hash_at(self, seq: int) -> str | None:
        with self._database.read() as connection:
            row = connection.execute("SELECT envelope FROM events WHERE seq = ?", (seq,)).fetchone()
        try:
            return _decode_event(row[0]).hash if row else None
        except msgspec.MsgspecError:
            return None

    def cursor(self, subscriber: str) -> int:
        with self._database.read() as connection:
            row = connection.execute("SELECT seq FROM cursors WHERE subscriber = ?", (subscriber,)).fetchone()
        return row[0] if row else 0

    def advance(self, subscriber: str, seq: int) -> None:
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (subscriber) DO UPDATE SET seq = max(seq, excluded.seq)",
                (subscriber, seq),
            )

    @property
    def frozen(self) -> bool:
        return self._database.frozen

    def aside(self) -> SqliteJournal:
        folder = tempfile.mkdtemp(prefix="cumulant-journal-")
        copy = SqliteJournal(f"sqlite://{folder}/journal.db", clock=self._clock)
        copy._options, copy._temporary = self._options, folder
        try:
            shutil.copyfile(self._database.path, copy._database.path)
        except OSError as error:
            copy.close()
            raise StorageError(f"the journal cannot be copied ({error.strerror})", subject=folder) from error
        return copy

    def close(self) -> None:
        self._database.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


class SqliteTransaction:
    """One open write transaction of a SqliteJournal."""

    def __init__(
        self, connection: sqlite3.Connection, *, actor: Actor, run: str | None, options: dict[str, str], clock: Clock
    ) -> None:
        self._connection = connection
        self._actor = actor
        self._run = run
        self._options = options
        self._clock = clock
        self._last: Event | None = None
        self._written: dict[tuple[str, str], tuple[int, str]] = {}

    @property
    def head(self) -> ChainHead | None:
        """The end of the chain; None if this transaction has no event."""
        return ChainHead(self._last.seq, self._last.hash) if self._last else None

    def get(self, kind: str, key: str) -> Row | None:
        return _get(self._connection, kind, key)

    def rows(self, kind: str, prefix: str = "") -> list[Row]:
        return _rows(self._connection, kind, prefix)

    def put(self, kind: str, key: str, value: dict[str, object], *, expect: int | None = None) -> Row:
        version, exists = self._version(kind, key)
        if expect is not None and expect != (version if exists else 0):
            raise LeaseHeldError(
                f"{kind} {key} was changed by someone else (version {version}, expected {expect})",
                subject=key,
                hint="read it again and decide anew",
            )
        encoded, updated = _encode(value), self._clock.now()
        self._written[kind, key] = version + 1, row_hashes.hash_of(version + 1, to_micros(updated), encoded)
        self._connection.execute(
            "INSERT INTO state VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key)"
            " DO UPDATE SET version = excluded.version, updated = excluded.updated, value = excluded.value",
            (kind, key, version + 1, to_micros(updated), encoded),
        )
        return Row(kind, key, _decode_value(encoded), version + 1, updated)

    def delete(self, kind: str, key: str) -> None:
        version, exists = self._version(kind, key)
        if not exists:
            return
        updated = to_micros(self._clock.now())
        self._written[kind, key] = version + 1, row_hashes.hash_of(version + 1, updated, None)
        self._connection.execute(
            "UPDATE state SET value = NULL, version = ?, updated = ? WHERE kind = ? AND key = ?",
            (version + 1, updated, kind, key),
        )

    def emit(self, fact: Fact, *, cause: str | None = None) -> Event:
        head = _head(self._connection)
        event = Event(
            seq=head.seq + 1,
            id=uuid.uuid4().hex,
            time=self._clock.now(),
            kind=fact.kind,
            schema=fact.schema,
            actor=self._actor.name,
            reason=self._actor.reason,
            project=self._options.get("project", "default"),
            tenant=self._options.get("tenant", "default"),
            region=self._options.get("region", "local"),
            run=self._run,
            cause=cause,
            data=_decode_value(_encode(fact)),
            previous=head.hash,
        ).sealed()
        self._connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?)", (event.seq, event.kind, event.run, _encode(event))
        )
        self._connection.execute("INSERT OR REPLACE INTO chain VALUES (1, ?, ?)", (event.seq, event.hash))
        self._last = event
        return event

    def bind(self) -> None:
        """Record the hashes of the rows written, and put them into the transaction's last event."""
        row_hashes.record(self._connection, self._written)
        if self._last is None:
            return
        digest = row_hashes.bind(self._connection, self._last.seq)
        if digest is None:
            return
        event = self._last = msgspec.structs.replace(self._last, rows=digest).sealed()
        self._connection.execute("UPDATE events SET envelope = ? WHERE seq = ?", (_encode(event), event.seq))
        self._connection.execute("UPDATE chain SET hash = ?", (event.hash,))

    def _version(self, kind: str, key: str) -> tuple[int, bool]:
        row = self._connection.execute(
            "SELECT version, value IS NOT NULL FROM state WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return (row[0], bool(row[1])) if row else (0, False)


def _get(connection: sqlite3.Connection, kind: str, key: str) -> Row | None:
    row = connection.execute(
        "SELECT key, value, version, updated FROM state WHERE kind = ? AND key = ? AND value IS NOT NULL", (kind, key)
    ).fetchone()
    return _row(kind, row) if row else None


def _rows(connection: sqlite3.Connection, kind: str, prefix: str) -> list[Row]:
    rows = connection.execute(
        "SELECT key, value, version, updated FROM state"
        " WHERE kind = ?1 AND value IS NOT NULL AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key",
        (kind, prefix, _after_prefix(prefix)),
    )
    return [_row(kind, row) for row in rows]


def _row(kind: str, columns: tuple[str, bytes, int, int]) -> Row:
    key, value, version, updated = columns
    return Row(kind, key, _decode_value(value), version, from_micros(updated))


def _after_prefix(prefix: str) -> str | None:
    """The least text above every text that starts with `prefix`; None if there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        last = ord(prefix[end])
        if last < 0x10FFFF:
            # Surrogates cannot be stored, so the text after U+D7FF is U+E000.
            return prefix[:end] + chr(0xE000 if last == 0xD7FF else last + 1)
    return None


def _events(
    connection: sqlite3.Connection, *, after: int, limit: int, kinds: Sequence[str], run: str | None
) -> list[tuple[int, bytes]]:
    conditions: list[str] = ["seq > ?"]
    values: list[object] = [after]
    if run is not None:
        conditions.append("run = ?")
        values.append(run)
    if kinds:
        conditions.append(f"kind IN ({', '.join('?' * len(kinds))})")
        values.extend(kinds)
    return connection.execute(
        f"SELECT seq, envelope FROM events WHERE {' AND '.join(conditions)} ORDER BY seq LIMIT ?",  # noqa: S608 - constants
        (*values, limit),
    ).fetchall()


def _read(seq: int, envelope: bytes) -> Event:
    try:
        return _decode_event(envelope)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"event {seq} of the journal was altered and cannot be read ({error})",
            subject=str(seq),
            hint="restore the journal from a copy",
        ) from error


def _head(connection: sqlite3.Connection) -> ChainHead:
    row = connection.execute("SELECT seq, hash FROM chain").fetchone()
    return ChainHead(*row) if row else ChainHead(0, GENESIS)


def _read_head(path: Path) -> ChainHead | None:
    """The last recorded head; None if there is no file or it has another format."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_SH)
        return _parse_head(file.read())


def _advance_head(path: Path, head: ChainHead, hash_at: Callable[[int], str | None]) -> None:
    """Record a committed head; `hash_at` gives the hash that the database has at a position of the chain.

    The file holds one line, `SEQ HASH`, so that a truncated or replaced database is detected. It may lag behind the
    database, as after a failed write, and is never ahead of it. It advances only while the database still has the
    event that it names: a contradiction stays in the file, to be reported. Windows has no such lock, and so no file.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            recorded = _parse_head(os.pread(handle, 128, 0))
            if recorded is None or (recorded.seq < head.seq and hash_at(recorded.seq) == recorded.hash):
                os.pwrite(handle, f"{head.seq:020d} {head.hash}\n".encode(), 0)
        finally:
            os.close(handle)


def _parse_head(content: bytes) -> ChainHead | None:
    match = _HEAD_LINE.fullmatch(content)
    return ChainHead(int(match[1]), match[2].decode()) if match else None

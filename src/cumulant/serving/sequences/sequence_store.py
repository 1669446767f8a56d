"""Store of sequence state: one SQLite file that all workers of a server share."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from cumulant.core.errors import EngineUnavailableError, OverloadedError
from cumulant.core.system.sqlite_files import use_wal
from cumulant.servable.engine import Array
from cumulant.serving.settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sequences (
    model TEXT NOT NULL, id BLOB NOT NULL, revision INTEGER NOT NULL, step INTEGER NOT NULL, expires REAL NOT NULL,
    size INTEGER NOT NULL, state BLOB NOT NULL, PRIMARY KEY (model, id)
);
CREATE INDEX IF NOT EXISTS sequences_expire ON sequences (expires);
CREATE TABLE IF NOT EXISTS totals (one INTEGER PRIMARY KEY CHECK (one = 1), sequences INTEGER, bytes INTEGER, revision INTEGER);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0);
CREATE TRIGGER IF NOT EXISTS sequences_added AFTER INSERT ON sequences BEGIN
    UPDATE totals SET sequences = sequences + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER IF NOT EXISTS sequences_changed AFTER UPDATE ON sequences BEGIN
    UPDATE totals SET bytes = bytes + new.size - old.size;
END;
CREATE TRIGGER IF NOT EXISTS sequences_gone AFTER DELETE ON sequences BEGIN
    UPDATE totals SET sequences = sequences - 1, bytes = bytes - old.size;
END;
"""  # noqa: E501 - a line a table
#: seconds that a writer waits for others; beyond, the caller has to retry
_WAIT = 5.0
_FILE = "sequences.db"


class SequenceBounds(msgspec.Struct, frozen=True):
    """Limits over all sequences of a server."""

    sequences: int = 10_000
    bytes: int = 256 * 1024 * 1024


class SequenceState(msgspec.Struct, frozen=True):
    """Stored state of a sequence; `revision` changes with every update and restart."""

    revision: int
    #: requests that it took in
    step: int
    states: Sequence[Array]


class SequenceStore:
    """Reads and changes sequences; several processes may do so at once, each with a store of its own on `folder`.

    What `put` has accepted outlives the process; the file is opened on first use. Reads come from one thread and
    writes from one, which may be another.

    Raises:
        EngineUnavailableError: the file cannot be used.
    """

    def __init__(
        self, folder: Path, bounds: SequenceBounds | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._bounds, self._clock = folder, bounds or SequenceBounds(), clock
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        #: the thread that writes, since it may have to wait for other processes
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="sequences")

    def find(self, model: str, key: bytes) -> SequenceState | None:
        """State of a sequence; None where there is none, or it expired."""
        with self._storage_errors():
            if self._reader is None:
                self._reader = self._open()
            row = self._reader.execute(
                "SELECT revision, step, state FROM sequences WHERE model = ? AND id = ? AND expires > ?",
                (model, key, self._clock()),
            ).fetchone()
        return None if row is None else SequenceState(row[0], row[1], _arrays(row[2]))

    def put(
        self, model: str, key: bytes, states: Sequence[Array] | None, *, after: SequenceState | None, idle: float
    ) -> bool:
        """Put the next step of the sequence in place of `after`, None: begin it, whatever was there.

        `states` None: the sequence ends. False, and nothing is changed, where `after` is not what is there any more.

        Raises:
            OverloadedError: there are as many sequences, or bytes of them, as there may be.
        """
        blob = (
            None if states is None else _encode([(state.dtype.str, state.shape, state.tobytes()) for state in states])
        )
        with self._storage_errors(), self._transaction() as connection:
            now = self._clock()
            connection.execute("DELETE FROM sequences WHERE expires <= ?", (now,))
            row = connection.execute(
                "SELECT revision, size FROM sequences WHERE model = ? AND id = ?", (model, key)
            ).fetchone()
            if after is not None and (row is None or row[0] != after.revision):
                return False
            if blob is None:
                connection.execute("DELETE FROM sequences WHERE model = ? AND id = ?", (model, key))
                return True
            self._admit(connection, 0 if row else 1, len(blob) - (row[1] if row else 0))
            self._write(connection, model, key, blob, step=after.step + 1 if after else 1, expires=now + idle)
        return True

    def _write(
        self, connection: sqlite3.Connection, model: str, key: bytes, blob: bytes, *, step: int, expires: float
    ) -> None:
        connection.execute("UPDATE totals SET revision = revision + 1")
        connection.execute(
            "INSERT INTO sequences SELECT ?, ?, revision, ?, ?, ?, ? FROM totals WHERE true"
            " ON CONFLICT (model, id) DO UPDATE SET revision = excluded.revision, step = excluded.step,"
            " expires = excluded.expires, size = excluded.size, state = excluded.state",
            (model, key, step, expires, len(blob), blob),
        )

    def _admit(self, connection: sqlite3.Connection, more: int, size: int) -> None:
        count, total = connection.execute("SELECT sequences, bytes FROM totals").fetchone()
        if more and count + more > self._bounds.sequences:
            raise _full(f"the server keeps {count} sequences already")
        if size > 0 and total + size > self._bounds.bytes:
            raise _full(f"the state of the server's sequences has {total} bytes already, and {size} more are too many")

    def totals(self) -> tuple[int, int]:
        """Sequences and bytes of their state, those included that were idle for too long and not yet forgotten."""
        with self._storage_errors():
            if self._reader is None:
                self._reader = self._open()
            count, size = self._reader.execute("SELECT sequences, bytes FROM totals").fetchone()
        return int(count), int(size)

    def close(self) -> None:
        """Finish the writes that were begun."""
        self.executor.shutdown()
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._writer is None:
            self._writer = self._open()
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Used by one thread at a time, which need not be the one that opened it.
        connection = sqlite3.connect(self._folder / _FILE, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        try:
            use_wal(connection, wait=_WAIT)
            # A killed process loses nothing; a power cut may take the last moments.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            hint = "check the folder that --sequences names: space, permissions, other programs"
            raise EngineUnavailableError(f"the state of sequences cannot be used: {error}", hint=hint) from error


def _full(what: str) -> OverloadedError:
    hint = "end sequences with sequence_end, or start the server with larger bounds"
    return OverloadedError(what, hint=hint, retry_after=1.0)


_Packed = list[tuple[str, tuple[int, ...], bytes]]
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def _arrays(blob: bytes) -> list[Array]:
    return [np.frombuffer(data, dtype=np.dtype(kind)).reshape(shape) for kind, shape, data in _decode(blob)]


@contextmanager
def sequence_folder(settings: Settings) -> Iterator[Settings]:
    """The settings with a folder for all workers; by default a temporary one for the life of the server.

    A machine without any place to write keeps None: models with state are refused there, others are served.
    """
    if settings.sequences is not None:
        yield settings
        return
    try:
        scratch = tempfile.TemporaryDirectory(prefix="cumulant-sequences-", ignore_cleanup_errors=True)
    except OSError:
        yield settings
        return
    with scratch as folder:
        yield msgspec.structs.replace(settings, sequences=folder)

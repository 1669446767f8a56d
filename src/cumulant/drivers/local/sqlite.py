"""One SQLite file for many threads and processes: WAL, short transactions, mapped errors."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cumulant.core.errors import CumulantError, EngineUnavailableError, StorageError, UsageError
from cumulant.core.system.sqlite_files import BUSY, find_writer, use_wal

_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


#: the folder of a project's state, which only its owner may read
_STATE = ".cumulant"
#: letters of another process's command line in a message
_COMMAND = 200


class _Immutable(sqlite3.Connection):
    """A connection to a file that cannot change: SQLite takes no lock and needs no files beside it."""


class Database:
    """A pool of connections to one file, opened on first use.

    A connection serves one caller at a time, so threads never share one; a forked child starts with an
    empty pool, because SQLite's connections do not survive a fork.

    A file in a place that cannot be written (a read-only disk) can still be read.

    Args:
        path: the file; its folder is made.
        schema: the statements that make the tables, run once in one transaction.
        version: the schema's version, kept in the file; a file of a newer one is refused.
        upgrades: what brings a file of that version to the next one, done when it is opened; one that cannot be written
            is read from an upgraded copy in memory.
        holds: what the file is called in errors.
        durable: a committed transaction survives a power cut, not only a crash of the process.
        mapped: how many bytes of the file are read through memory instead of system calls.
        wait: seconds to wait for another writer before EngineUnavailableError.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str,
        version: int,
        holds: str,
        durable: bool = True,
        mapped: int = 0,
        wait: float = 60.0,
        upgrades: Mapping[int, Callable[[sqlite3.Connection], None]] | None = None,
    ) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._upgrades = upgrades or {}
        self._holds = holds
        self._pragmas = {"synchronous": "FULL" if durable else "NORMAL", "temp_store": "MEMORY", "mmap_size": mapped}
        self._wait = wait
        self._process = os.getpid()
        self._idle: deque[sqlite3.Connection] = deque()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection in autocommit mode: each statement sees one state of the file."""
        connection = self.acquire()
        try:
            yield connection
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            self.release(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction; writers wait for each other. Committed on exit, rolled back by an exception."""
        connection = self.acquire()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            self.release(connection)

    def acquire(self) -> sqlite3.Connection:
        """An idle connection, or a new one. Return it with `release`."""
        if self._process != os.getpid():
            self._process, self._idle = os.getpid(), deque()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def release(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction or isinstance(connection, _Immutable):
            # The place may be writable the next time, and the file another then.
            # An interrupt or a failed disk came between: closing undoes what was open.
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections. The next use opens the file again."""
        while self._idle and self._process == os.getpid():
            self._idle.pop().close()

    def explain(self, error: sqlite3.Error) -> CumulantError:
        """The CumulantError for `error`: a locked file can be retried, a full disk or a damaged file cannot."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = str(self.path)
        if code in BUSY:
            return self._busy()
        if code in _BROKEN:
            return StorageError(
                f"the {self._holds} is damaged and cannot be read ({error})",
                subject=where,
                hint="move the file away and restore it from a copy; `sqlite3 FILE .recover` may save what is left",
            )
        if code == sqlite3.SQLITE_READONLY:
            return StorageError(
                f"the {self._holds} can be read but not written",
                subject=where,
                hint="make its folder writable, or work on a copy of the project",
            )
        if code == sqlite3.SQLITE_FULL:
            return StorageError(f"the disk of the {self._holds} is full", subject=where, hint="free some space")
        return StorageError(
            f"the {self._holds} cannot be used ({error})",
            subject=where,
            hint="check that its folder exists, can be written and has space",
        )

    def _busy(self) -> EngineUnavailableError:
        writer, where, name = find_writer(self.path), str(self.path), "another process"
        hint = "try again; if nothing else runs, look for a stopped process that holds the file"
        if writer is not None and writer.pid != os.getpid():
            name = f"process {writer.pid} ({writer.command[:_COMMAND]})"
            hint = "try again when it has ended"
            if writer.stopped:
                name += ", which is stopped,"
                hint = f"let it go on (kill -CONT {writer.pid}), or end it (kill -KILL {writer.pid}): nothing is lost"
        text = f"the {self._holds} is busy: {name} has been writing for {self._wait:g} s"
        return EngineUnavailableError(text, subject=where, hint=hint)

    @property
    def frozen(self) -> bool:
        """Whether the file is complete and read-only: on a read-only disk, or in a folder without write permission."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        pending = wal.exists() and wal.stat().st_size > 0
        return self.path.is_file() and not os.access(self.path.parent, os.W_OK) and not pending

    def _connect(self) -> sqlite3.Connection:
        if self.frozen:
            return self._connect_immutable()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the folder of the {self._holds} cannot be made ({error.strerror})", subject=str(self.path.parent)
            ) from error
        if _STATE in self.path.absolute().parts:  # elsewhere it may be shared on purpose: the umask decides
            _create_private(self.path)
        try:
            connection = sqlite3.connect(
                self.path, timeout=self._wait, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            raise self.explain(error) from error
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            raise self.explain(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_immutable(self) -> sqlite3.Connection:
        """WAL needs a file beside this one even to read, which cannot be made here; an unchanging file needs none."""
        try:
            connection: sqlite3.Connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                factory=_Immutable,
            )
            if 0 < self._refuse_newer(connection) < self._version:
                connection = self._copy_upgraded(connection)
        except sqlite3.Error as error:
            raise self.explain(error) from error
        return connection

    def _copy_upgraded(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """A copy in memory, of the current version, of a file that cannot be written."""
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=_Immutable)
        connection.backup(copy)
        connection.close()
        self._migrate(copy)
        copy.execute("PRAGMA query_only=1")
        return copy

    def _prepare(self, connection: sqlite3.Connection) -> None:
        use_wal(connection, wait=self._wait)
        for name, value in self._pragmas.items():
            connection.execute(f"PRAGMA {name}={value}")
        if self._refuse_newer(connection) < self._version:
            self._migrate(connection)

    def _refuse_newer(self, connection: sqlite3.Connection) -> int:
        """The version of the file's format. Raises UsageError for an unknown newer one."""
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > self._version:
            raise UsageError(
                f"the {self._holds} was written by a newer Cumulant (format {version}, known: {self._version})",
                subject=str(self.path),
                hint="upgrade: pip install -U cumulant",
            )
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Make the tables of a new file, or upgrade those of an older one; others that do so are waited for."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            present = self._refuse_newer(connection)
            if present == 0:
                for statement in filter(str.strip, self._schema.split(";")):
                    connection.execute(statement)
            else:
                for version in range(present, self._version):
                    self._upgrades[version](connection)
            connection.execute(f"PRAGMA user_version={self._version:d}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise


def _create_private(path: Path) -> None:
    """A new file with mode 0600; SQLite gives the files beside it (-wal, -shm) the same.

    The file gets its name after it was closed: closing it under that name would end the locks of this process on it.
    """
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with suppress(OSError):  # SQLite makes it, or reports why it cannot
        try:
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.link(aside, path)  # unlike a rename, this never replaces the file of another process
        finally:
            aside.unlink(missing_ok=True)


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite undoes a transaction by itself after some errors (a full disk).
    if connection.in_transaction:
        connection.execute("ROLLBACK")

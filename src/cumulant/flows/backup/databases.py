"""A consistent copy of a SQLite database during writes; only SQLite may open it, or its locks end."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from cumulant.core.errors import EngineUnavailableError, IntegrityError

_WAIT, _TRY = 60.0, 1.0
#: beside a database: what was committed or has to be undone, and is not in its file yet
_PENDING = ("-wal", "-journal")


def copy_database(source: Path, target: Path) -> None:
    """Copy in one read transaction: with all that was committed before, and no partial transaction.

    Raises:
        EngineUnavailableError: a writer has kept it locked for a minute.
        IntegrityError: it is damaged.
        OSError: the target cannot be written.
    """
    source = source.resolve()  # what is pending lies beside the file, not beside a link to it
    # Opened for writing, so that what a killed writer left is undone first. In a folder that cannot be written SQLite
    # cannot make the files that reading takes.
    if os.access(source.parent, os.W_OK):
        _copy(source, target, "mode=rw")
    elif pending := [path for path in _beside(source) if path.is_file() and path.stat().st_size]:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _copy(_copy_files([source, *pending], Path(folder)), target, "mode=rw")
    else:
        _copy(source, target, "mode=ro&immutable=1")


def _beside(source: Path) -> list[Path]:
    return [source.with_name(source.name + suffix) for suffix in _PENDING]


def _copy_files(files: list[Path], folder: Path) -> Path:
    """Copies of a database's files in a folder that can be written; the database."""
    before = [_state(path) for path in files]
    for path in files:
        shutil.copyfile(path, folder / path.name)
    if [_state(path) for path in files] != before:
        raise EngineUnavailableError(
            f"{files[0]} changes while it is read, and its folder cannot be written",
            subject=str(files[0]),
            hint="run the backup as the user whose processes write there",
        )
    return folder / files[0].name


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _copy(source: Path, target: Path, options: str) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?{options}", uri=True, timeout=_TRY)) as before,
            closing(sqlite3.connect(target)) as after,
        ):
            _begin(before)
            before.backup(after)
            problem = after.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _explain_error(error, source, target) from error
    if problem != "ok":
        raise _damaged(source, problem)


def _begin(database: sqlite3.Connection) -> None:
    """Begin to read, while `backup` would wait for a lock without end; a signal ends the wait between two tries."""
    database.isolation_level = None
    deadline = time.monotonic() + _WAIT
    database.execute("BEGIN")
    while True:
        try:
            database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return


def _explain_error(error: sqlite3.Error, source: Path, target: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(source, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return EngineUnavailableError(
            f"{source} is busy: another process has been writing for {_WAIT:g} s",
            subject=str(source),
            hint="run it again",
        )
    if code == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    return OSError(errno.EIO, str(error), str(source))


def _damaged(source: Path, problem: str) -> IntegrityError:
    return IntegrityError(
        f"{source} is damaged: {problem}",
        subject=str(source),
        hint="restore it from the last backup: this one would only keep the damage, and is not written",
    )

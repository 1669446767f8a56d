"""A SQLite database that others write to, copied as it stands at one moment.

Only SQLite may open the file: the locks of this process on it end when any handle of it is closed.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cumulant.core.errors import EngineUnavailableError, IntegrityError

_WAIT = 60.0


def copy_database(source: Path, target: Path) -> None:
    """Copy in one read transaction: with all that was committed before, and nothing by halves.

    Raises:
        EngineUnavailableError: a writer has kept it locked for a minute.
        IntegrityError: it is damaged.
        OSError: the target cannot be written.
    """
    # Opened for writing, so that what a killed writer left is undone first. In a folder that cannot be written nobody
    # changes it, and SQLite cannot make the files that reading takes.
    options = "mode=rw" if os.access(source.parent, os.W_OK) else "mode=ro&immutable=1"
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?{options}", uri=True, timeout=_WAIT)) as before,
            closing(sqlite3.connect(target)) as after,
        ):
            before.backup(after)
            problem = after.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _explained(error, source, target) from error
    if problem != "ok":
        raise _damaged(source, problem)


def _explained(error: sqlite3.Error, source: Path, target: Path) -> Exception:
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

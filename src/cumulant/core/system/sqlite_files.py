"""SQLite files that several processes open at once."""

from __future__ import annotations

import sqlite3
import time

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PAUSE = 0.01


def use_wal(connection: sqlite3.Connection, *, wait: float) -> None:
    """Switch a file to a write-ahead log. SQLite does not wait for others that do so: this waits `wait` seconds.

    Raises:
        sqlite3.OperationalError: others have had the file for too long, or it cannot be written.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return

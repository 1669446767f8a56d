"""SQLite files that several processes open at once."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PAUSE = 0.01
#: the byte of the `-shm` file that is locked by who writes to the log (SQLite's WAL_WRITE_LOCK)
_WRITE_LOCK = 120


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


class Writer(NamedTuple):
    """A process of this machine that holds a file's write lock. `stopped`: it cannot go on by itself (SIGSTOP)."""

    pid: int
    command: str
    stopped: bool


def find_writer(path: Path) -> Writer | None:
    """The process that holds the write lock of a file with a write-ahead log; None where the system does not report it.

    Nothing is opened: closing one of the file's descriptors would end this process's own locks on it.
    """
    with suppress(OSError, ValueError):
        inode = path.with_name(f"{path.name}-shm").stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # `1: POSIX  ADVISORY  WRITE 4711 fd:01:3409 120 120`; those that wait have `->` after the number
            match line.split():
                case [_, "POSIX", _, "WRITE", pid, place, first, last]:
                    if int(place.rpartition(":")[2]) == inode and int(first) <= _WRITE_LOCK <= int(last):
                        return _writer(int(pid))
    return None


def _writer(pid: int) -> Writer:
    folder = Path(f"/proc/{pid}")
    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    status = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    # The name, in parentheses, may contain anything.
    state = status.rpartition(")")[2].split()[0]
    return Writer(pid, " ".join(command.split()), state in "Tt")

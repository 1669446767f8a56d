"""The newest head of the event chain in a file beside the database, so that a database cut back or made anew is seen.

One line, `SEQ HASH`, replaced after each commit. It may lag behind the database and is never ahead of it. It goes on
only while the database still holds the event that it names: what contradicts it stays in it, to be reported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cumulant.ports.journal import Head

if sys.platform != "win32":
    import fcntl

_LINE = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")


class Witness:
    """The file beside one database. On Windows, which has no such lock, there is none."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}.head")

    def read(self) -> Head | None:
        """The head that was noted last; None where there is no file, or it holds something else."""
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_SH)
            return _parsed(file.read())

    def advance(self, head: Head, hash_at: Callable[[int], str | None]) -> None:
        """Note a head that was committed; `hash_at` gives the hash that the database has at a place of the chain.

        A disk that does not take it is no reason to fail: the file lags behind.
        """
        if sys.platform == "win32":
            return
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                noted = _parsed(os.pread(handle, 128, 0))
                if noted is None or (noted.seq < head.seq and hash_at(noted.seq) == noted.hash):
                    os.pwrite(handle, f"{head.seq:020d} {head.hash}\n".encode(), 0)
            finally:
                os.close(handle)


def _parsed(content: bytes) -> Head | None:
    found = _LINE.fullmatch(content)
    return Head(int(found[1]), found[2].decode()) if found else None

"""The head of the event chain in a file beside the database, so that a truncated or replaced database is detected.

One line, `SEQ HASH`, replaced after each commit. It may lag behind the database and is never ahead of it. It advances
only while the database still has the event that it names: a contradiction stays in the file, to be reported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cumulant.ports.journal import ChainHead

if sys.platform != "win32":
    import fcntl

_LINE = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")


class HeadFile:
    """The head file of one database. On Windows, which has no such lock, there is none."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}.head")

    def read(self) -> ChainHead | None:
        """The last recorded head; None if there is no file or it has another format."""
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_SH)
            return _parse_head(file.read())

    def advance(self, head: ChainHead, hash_at: Callable[[int], str | None]) -> None:
        """Record a committed head; `hash_at` gives the hash that the database has at a position of the chain.

        A failed write is not an error: the file lags behind.
        """
        if sys.platform == "win32":
            return
        with suppress(OSError):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                recorded = _parse_head(os.pread(handle, 128, 0))
                if recorded is None or (recorded.seq < head.seq and hash_at(recorded.seq) == recorded.hash):
                    os.pwrite(handle, f"{head.seq:020d} {head.hash}\n".encode(), 0)
            finally:
                os.close(handle)


def _parse_head(content: bytes) -> ChainHead | None:
    match = _LINE.fullmatch(content)
    return ChainHead(int(match[1]), match[2].decode()) if match else None

"""The file beside a journal's database with the newest event of each scope: `SEQ HASH SCOPE`, a line each.

It may lag behind the database, as after a failed write, and is never ahead of it, so that a truncated or replaced
database is detected. Windows has no such lock, and so no file.
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

_LINE = rb"(?m)^(\d{20}) ([0-9a-f]{64}) %s$"


def read_head(path: Path, scope: str) -> ChainHead | None:
    """The last recorded head of a scope; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_SH)
        match = _line(file.read(), scope)
    return None if match is None else _head(match)


def advance_head(path: Path, scope: str, head: ChainHead, hash_at: Callable[[int], str | None]) -> None:
    """Record a committed head; `hash_at` gives the hash that the database has at a position of the chain.

    It advances only while the database still has the event that it names: a contradiction stays in the file, to be
    reported.
    """
    if sys.platform == "win32":
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            content = os.pread(handle, os.fstat(handle).st_size, 0)
            match = _line(content, scope)
            entry = f"{head.seq:020d} {head.hash} {scope}\n".encode()
            if match is None:
                start = b"" if not content or content.endswith(b"\n") else b"\n"
                os.pwrite(handle, start + entry, len(content))
            elif (recorded := _head(match)).seq < head.seq and hash_at(recorded.seq) == recorded.hash:
                os.pwrite(handle, entry, match.start())
        finally:
            os.close(handle)


def _line(content: bytes, scope: str) -> re.Match[bytes] | None:
    return re.search(_LINE % re.escape(scope.encode()), content)


def _head(match: re.Match[bytes]) -> ChainHead:
    return ChainHead(int(match[1]), match[2].decode())

"""A lock file between processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import EngineUnavailableError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_WAIT = 240.0
_PAUSE = 0.05


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Lock the file `path`. The system releases the lock when a process ends, however it ends; the file remains.

    Raises:
        EngineUnavailableError: another process has held it for too long.
        OSError: the file cannot be made.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        deadline = time.monotonic() + _WAIT
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                hint = "look for a stopped process that holds it"
                raise EngineUnavailableError(f"{path} is held by another process", subject=str(path), hint=hint)
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""Locks on files and folders; the system releases one when its process ends, however it ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import CumulantError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PAUSE = 0.05


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; returns whether it was free.

    Raises:
        OSError: its file system has no locks.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second one on Windows
        return False
    return True


@contextmanager
def lock_file(path: Path, busy: CumulantError, *, wait: float = 0.0, private: bool = False) -> Iterator[None]:
    """Lock a file during the block. It is made where it is missing, and stays. `private`: for its owner alone.

    Raises:
        CumulantError: `busy`, where another process has had the lock for `wait` seconds.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600 if private else 0o666)
    try:
        deadline = time.monotonic() + wait
        while not try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise busy
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)

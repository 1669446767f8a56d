"""Temporary folders of caches and stores: a living process locks its own, so that others can be removed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cumulant.core.system.locks import try_lock

if sys.platform != "win32":
    import fcntl

# Seconds. A folder is made a moment before it is locked; without locks, only age identifies an abandoned one.
_TIME_TO_LOCK = 60.0
DAY = 86_400.0


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep the folder from being removed as abandoned until the block ends. Raises OSError."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def remove_abandoned(folders: Iterable[Path], *, after: float = _TIME_TO_LOCK) -> None:
    """Remove those of the folders that no process has in use, such as a killed one's.

    `after`: seconds since something was put into the folder itself; a day where several machines may mount its parent,
    as the locks of another machine are not visible.
    """
    for folder in folders:
        with suppress(OSError):
            age = time.time() - folder.stat().st_mtime
            if age >= (DAY if sys.platform == "win32" else after):
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    if sys.platform == "win32":
        shutil.rmtree(folder, ignore_errors=True)
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if try_lock(handle):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)

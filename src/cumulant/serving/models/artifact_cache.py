"""Temporary folder with copies of the served content; abandoned folders of killed servers are removed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "cumulant-kept-"
#: a folder that was made a moment ago may not be locked yet
_YOUNG_SECONDS = 60.0


@contextmanager
def artifact_folder() -> Iterator[str | None]:
    """Folder that exists until the block ends; None where no temporary folder can be written."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        reason = error.strerror or error
        sys.stderr.write(f"what is served cannot be kept: {reason}; do not change its folders while they are served\n")
        yield None
        return
    remove_abandoned(folder.parent)
    lock = _lock(folder)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned(place: Path) -> None:
    """Remove the folders of ended servers in `place`."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _YOUNG_SECONDS:
                continue
        if (lock := _lock(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Descriptor that locks the folder; None where another process has locked it."""
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # another user's, or removed by now
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor

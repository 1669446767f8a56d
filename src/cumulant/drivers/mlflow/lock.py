"""One process at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import EngineUnavailableError

_STALE = 120.0


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. The lock of a process that died is taken over after two minutes.

    Raises:
        EngineUnavailableError: another process has held it for too long.
    """
    deadline = time.monotonic() + 2 * _STALE
    while not _take(path):
        if time.monotonic() > deadline:
            hint = "delete the file if nothing else runs"
            raise EngineUnavailableError(f"{path} is held by another process", subject=str(path), hint=hint)
        time.sleep(0.1)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        try:
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return False
    return True

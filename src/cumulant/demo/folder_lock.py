"""One demo at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import LeaseHeldError
from cumulant.core.system.locks import try_lock


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other demo runs in the folder within the block.

    Raises:
        LeaseHeldError: another one runs.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not try_lock(handle):
            hint = "wait for it, or name another folder with --dir"
            raise LeaseHeldError("another demo runs in this folder", subject=str(folder), hint=hint)
        yield
    finally:
        os.close(handle)

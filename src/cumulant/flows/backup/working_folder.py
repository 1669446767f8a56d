"""A working folder beside the target, so that nothing unfinished stands at the target."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import StorageError
from cumulant.core.system.atomic_files import sync
from cumulant.core.system.temporary_folders import remove_abandoned

if sys.platform != "win32":
    import fcntl

_PREFIX = ".cumulant-draft-"


@contextmanager
def open_draft(beside: Path) -> Iterator[Path]:
    """A new private folder in `beside`, removed at the end; what killed processes left there is removed first.

    Raises:
        StorageError: no space, or a folder that cannot be written.
    """
    try:
        beside.mkdir(parents=True, exist_ok=True)
        remove_abandoned(beside.glob(f"{_PREFIX}*"), after=-math.inf)
        folder, handle = _make_folder(beside)
    except OSError as error:
        raise storage_error(error, beside) from None
    try:
        yield folder
    except OSError as error:
        raise storage_error(error, beside) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _make_folder(beside: Path) -> tuple[Path, int]:
    """The folder and its lock; made again where another process took it for an abandoned one before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=beside, prefix=_PREFIX))
        handle = os.open(folder, os.O_RDONLY)
        if sys.platform == "win32":
            return folder, handle
        fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():
            return folder, handle
        os.close(handle)


def put_in_place(content: Path, target: Path) -> None:
    """One renaming, durable; an empty folder is replaced, and a full one is an error. Raises OSError."""
    content.rename(target)
    sync(target.parent)


def storage_error(error: OSError, folder: Path) -> StorageError:
    return StorageError(
        f"{error.filename or folder} cannot be written or read: {error.strerror or error}",
        subject=str(folder),
        hint="free some space or name another folder, and run it again: nothing half-made was left",
    )

"""A new folder that appears whole or not at all."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.scope import NAME, NAME_SAYS

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def new_folder(name: str, parent: Path) -> Iterator[Path]:
    """A folder to fill, beside the place where it goes. On leaving without an exception it becomes `parent/name`.

    Raises:
        UsageError: `name` cannot name a project, or a file or a folder with content stands there.
        StorageError: no space, or the place cannot be written. Nothing is left behind.
    """
    target = target_folder(name, parent)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    except OSError as error:
        raise _storage(error, target) from error
    try:
        content = aside / name
        content.mkdir()
        yield content
        if target.is_dir():
            target.rmdir()  # empty, or this fails: what someone put there meanwhile stays
        content.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise _taken(target) from error
        raise _storage(error, target) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def target_folder(name: str, parent: Path) -> Path:
    """Where the project goes. Raises UsageError for a name that cannot be one, or a place that is taken."""
    if not re.fullmatch(NAME, name):
        hint = f"take {NAME_SAYS}"
        if "/" in name or "\\" in name:
            hint = "change into the folder where the project goes, and give its name alone"
        raise UsageError(f'"{name}" cannot name a project', subject=name, hint=hint)
    target = parent / name
    try:
        taken = target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir())))
    except OSError as error:
        raise _storage(error, target) from error
    if taken:
        raise _taken(target)
    return target


def _taken(target: Path) -> UsageError:
    return UsageError(
        f"{target} exists and is not an empty folder",
        subject=str(target),
        hint="take another name, or remove it first; nothing was written",
    )


def _storage(error: OSError, target: Path) -> StorageError:
    full = error.errno in _FULL
    return StorageError(
        f"the project {target} cannot be written: {error.strerror or error}",
        subject=str(target),
        hint="free some space" if full else "check the folder and its permissions",
    )

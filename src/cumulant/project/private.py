"""Who may read a project's state: its owner. The state folder is made here, and nowhere else."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cumulant.ports.plugins import Drivers
from cumulant.project.endpoints import STATE, Endpoints

_OTHERS = 0o077
#: of users that are not in the group either
_ANYBODY = 0o007


def make_private(folder: Path) -> None:
    """The state folder with mode 0700, whatever the umask is; one that others can enter is tightened with its content.

    Nothing happens where it cannot be made or belongs to another user: whoever needs it reports why. Nothing happens
    either where it is a symbolic link: the folder behind it may be shared on purpose, and `doctor` reports it.
    """
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # the umask may have taken bits of the owner too
    except FileExistsError:
        _tighten(folder)
    except OSError:
        return


def open_to_others(root: Path, endpoints: Endpoints, drivers: Drivers) -> list[Path]:
    """What of a project's state other users of this machine may read or write: the state folder in `root`, and
    databases that lie elsewhere, which may be shared within their group.
    """
    if sys.platform == "win32":
        return []
    state = root / STATE
    paths = (drivers.path(url) for url in (endpoints.journal, endpoints.online))
    elsewhere = [path for path in paths if path and not path.is_relative_to(state)]
    return [
        *([state] if _exposed(state, _OTHERS) else []),
        *(path for path in elsewhere if _exposed(path, _ANYBODY)),
    ]


def _exposed(path: Path, bits: int) -> bool:
    try:
        return bool(path.stat().st_mode & bits)
    except OSError:
        return False


def _tighten(folder: Path) -> None:
    if sys.platform == "win32":
        return
    with suppress(OSError):
        # A link stays: the folder that it leads to may be shared on purpose, and holds more than this state.
        status = folder.lstat()
        if status.st_mode & _OTHERS and status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode):
            # First the folder: from here on no other user reaches what is in it.
            folder.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
            for path in _content(folder):
                _close(path)


def _content(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        yield from (Path(current, name) for name in (*folders, *files))


def _close(path: Path) -> None:
    """Take away what others may do. Links and files of several names stay: they are also in use elsewhere."""
    with suppress(OSError):
        status = path.lstat()
        linked = stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1)
        if status.st_mode & _OTHERS and status.st_uid == os.geteuid() and not linked:
            path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)

"""The folder of what a user's processes keep for later ones, and can make anew at any time."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def user_cache(environment: Mapping[str, str]) -> Path | None:
    """`$XDG_CACHE_HOME/cumulant`, by default `~/.cache/cumulant`; None where there is none."""
    given = environment.get("XDG_CACHE_HOME")
    try:
        base = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:  # this user has no home folder
        return None
    return base / "cumulant" if base.is_absolute() else None


def is_own(folder: Path) -> bool:
    """Whether it is a folder that only the user of this process can write to; never on Windows."""
    if sys.platform == "win32":
        return False
    try:
        status = folder.lstat()
    except OSError:
        return False
    own = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
    return stat.S_ISDIR(status.st_mode) and own


def add_entry(folder: Path, write: Callable[[Path], object], *, most: int) -> None:
    """Make the folder, let `write` add an entry, and remove the oldest of more than `most`; without effect where the
    folder cannot be written, or others can write to it.
    """
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_own(folder):
            return
        write(folder)
        entries = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
        for entry in entries[:-most]:
            entry.unlink(missing_ok=True)

"""Record of content that passed the load check on this machine, so that later starts skip it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cumulant.core.ids import digest
from cumulant.core.system.memory import machine_memory
from cumulant.core.version import __version__
from cumulant.serving.content_pins import Pin

#: entries; each is an empty file
_MOST = 1000
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def passed_checks_folder(environment: Mapping[str, str]) -> str | None:
    """Folder of this user's passed load checks; None where there is none."""
    given = environment.get("XDG_CACHE_HOME")
    try:
        base = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:  # this user has no home folder
        return None
    return str(base / "cumulant" / "trials") if base.is_absolute() else None


class PassedChecks:
    """Contents that passed a load check, as files of a folder that only the user of this process can write to."""

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None or sys.platform == "win32" else Path(folder)

    def __contains__(self, pinned: Pin) -> bool:
        return self._folder is not None and _is_own(self._folder) and (self._folder / _key(pinned)).is_file()

    def add(self, pinned: Pin) -> None:
        """Record a pin; without effect where the folder cannot be written."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_own(self._folder):
                return
            (self._folder / _key(pinned)).touch(mode=0o600)
            entries = sorted(self._folder.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
            for entry in entries[:-_MOST]:
                entry.unlink()


def _is_own(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    own = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
    return stat.S_ISDIR(status.st_mode) and own


def _key(pinned: Pin) -> str:
    """Key of the content, the engine and the machine's memory."""
    engine = importlib.util.find_spec("onnxruntime")
    origin = "" if engine is None or engine.origin is None else engine.origin
    changed = Path(origin).stat().st_mtime_ns if origin else 0
    versions = [importlib.metadata.version(name) for name in ("onnxruntime", "numpy")] if origin else []
    return digest([pinned.digest, __version__, versions, platform.machine(), origin, changed, machine_memory()])

"""Record of content that passed the load check on this machine, so that later starts skip it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from cumulant.core.ids import digest
from cumulant.core.system.memory import machine_memory
from cumulant.core.system.user_cache import add_entry, is_own, user_cache
from cumulant.core.version import __version__
from cumulant.serving.content_pins import Pin

#: entries; each is an empty file
_MOST = 1000


def passed_checks_folder(environment: Mapping[str, str]) -> str | None:
    """Folder of this user's passed load checks; None where there is none."""
    cache = user_cache(environment)
    return None if cache is None else str(cache / "trials")


class PassedChecks:
    """Contents that passed a load check, as files of a folder that only the user of this process can write to."""

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None or sys.platform == "win32" else Path(folder)

    def __contains__(self, pinned: Pin) -> bool:
        return self._folder is not None and is_own(self._folder) and (self._folder / _key(pinned)).is_file()

    def add(self, pinned: Pin) -> None:
        """Record a pin; without effect where the folder cannot be written."""
        if self._folder is not None:
            add_entry(self._folder, lambda folder: (folder / _key(pinned)).touch(mode=0o600), most=_MOST)


def _key(pinned: Pin) -> str:
    """Key of the content, the engine and the machine's memory."""
    engine = importlib.util.find_spec("onnxruntime")
    origin = "" if engine is None or engine.origin is None else engine.origin
    changed = Path(origin).stat().st_mtime_ns if origin else 0
    versions = [importlib.metadata.version(name) for name in ("onnxruntime", "numpy")] if origin else []
    return digest([pinned.digest, __version__, versions, platform.machine(), origin, changed, machine_memory()])

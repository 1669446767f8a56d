"""Cached results, in a folder named by all that they depend on.

    STATE/monitoring/profiles/KEY       of a reference and of the days of the log
    STATE/monitoring/estimators/KEY     of the loss without labels
    STATE/monitoring/rows/KEY           of the log with its labels (`outcomes.join.join_cache`)
    STATE/review/figures/KEY            of a report on the review queue

Every file has a digest of its content; a damaged one is made again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cumulant.core.ids import digest
from cumulant.core.system.atomic_files import read_checked, write_checked

if TYPE_CHECKING:
    from cumulant.project.project import Project

Result = TypeVar("Result")
#: keys whose results stay; a version that served before may serve again
_KEYS = 4


@dataclass(frozen=True)
class ResultCache:
    """A folder of results. `key`: all that they depend on and do not hold themselves."""

    root: Path
    key: str

    @property
    def folder(self) -> Path:
        return self.root / digest({"reference": self.key, "format": 2})[:32]

    def read(self, name: str, kind: type[Result]) -> Result | None:
        """What is stored under a name; None where it is not there or damaged."""
        content = read_checked(self.folder / name)
        if content is None:
            return None
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.msgpack.decode(content, type=kind, dec_hook=_to_array)
        return None

    def write(self, name: str, value: object) -> None:
        """Store it. What cannot be written is made again at the next evaluation."""
        with contextlib.suppress(OSError):
            write_checked(self.folder / name, msgspec.msgpack.encode(value, enc_hook=_from_array))

    def get(self, name: str, kind: type[Result], make: Callable[[], Result]) -> Result:
        """What is stored under a name, made and stored where it is not there."""
        result = self.read(name, kind)
        if result is None:
            result = make()
            self.write(name, result)
        remove_oldest(self.root, self.folder.name)
        return result


def cache_folder(project: Project, subject: str, name: str) -> Path:
    """A folder of results on this machine; another machine makes its own from the same logs."""
    return project.state / subject / name


def remove_oldest(root: Path, used: str) -> None:
    """Delete the folders in `root` that were not used lately; `used` is used now."""
    with contextlib.suppress(OSError):
        os.utime(root / used)
        known = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in known[_KEYS:]:
            shutil.rmtree(path, ignore_errors=True)


def _from_array(value: object) -> object:
    import numpy as np  # results without arrays are read without it, in half the time

    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return [list(value.shape), value.tobytes()]
    raise NotImplementedError(f"{type(value).__name__} cannot be stored")


def _to_array(_kind: object, value: Any) -> object:
    import numpy as np

    shape, content = value
    return np.frombuffer(content, dtype=np.float64).reshape(shape)

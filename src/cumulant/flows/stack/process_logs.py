"""Log files of processes, of bounded size."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

MOST_BYTES = 8 * 1024 * 1024
_TAIL = 4096
_LONGEST = 300


class LogFile:
    """`NAME.log`, and `NAME.log.1` with what was written before."""

    def __init__(self, path: Path, *, most: int = MOST_BYTES) -> None:
        self.path = path
        self._most = most

    def open(self) -> IO[bytes]:
        """To hand to a process. Every write goes to the end, also after `turn`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.open("ab")

    def turn(self) -> None:
        """Set aside what a file of too many bytes holds, and empty it; whoever writes to it goes on."""
        with suppress(OSError):  # a full disk: the next time
            if self.path.stat().st_size > self._most:
                shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
                os.truncate(self.path, 0)

    def remove(self) -> None:
        """Remove both files; one that cannot be removed stays."""
        for path in (self.path, self.path.with_name(f"{self.path.name}.1")):
            with suppress(OSError):
                path.unlink()

    def last_words(self) -> str:
        """The last line; empty where nothing was said."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
                lines = stream.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last[:_LONGEST]

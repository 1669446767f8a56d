"""Standard error of a server: where it cannot be written (disk full), a line is lost and the program continues."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Lossy(io.RawIOBase):
    """Writes to a descriptor, which it never closes; what that does not take is lost."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer) -> int:
        """All of it counts as written."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, data)
        return memoryview(data).nbytes


def lossy_stderr(descriptor: int = 2) -> None:
    """Make `sys.stderr` never fail; for the start of a program."""
    raw = io.BufferedWriter(Lossy(descriptor))
    sys.stderr = io.TextIOWrapper(
        raw, encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True
    )

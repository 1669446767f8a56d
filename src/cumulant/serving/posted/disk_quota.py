"""Disk quota of a folder that several processes write to and another one empties."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cumulant.core.errors import OverloadedError, UsageError

#: a file takes whole blocks of a disk, however small it is
_BLOCK = 4096
#: seconds between two looks at the folder, and at least so many times as long as a look takes
_LOOK, _SELDOM = 1.0, 20.0
#: seconds until whoever empties it may have come by
_RETRY = 30.0


class DiskQuota:
    """Tracks the size of the folder, in blocks: measured regularly, plus what this process writes in between.

    Writes of other processes count from the next measurement on, so they may exceed the quota meanwhile; a file that
    is written during a measurement counts twice until the next. Files are never deleted.

    Args:
        most: bytes.
    """

    def __init__(self, folder: Path, most: int, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._most, self._steady = folder, most, steady
        self._lock = threading.Lock()
        #: in the folder as of the last look and what was added here since, and what is being written
        self._used, self._coming = 0, 0
        self._next = -_LOOK

    def reserve(self, size: int) -> None:
        """Reserve space for a file of `size` bytes before it is written; `complete` must follow.

        Raises:
            UsageError: it does not fit into the empty folder.
            OverloadedError: there is no room for it now.
            OSError: the folder cannot be read.
        """
        whole = _blocks(size)
        if whole > self._most:
            raise UsageError(
                f"they take {whole:,} bytes, and all posted labels together may take {self._most:,}",
                hint="post them in parts, or ingest a file",
            )
        with self._lock:
            self._measure()
            if self._used + self._coming + whole > self._most:
                raise OverloadedError(
                    f"posted labels wait for ingestion, and no more than {self._most:,} bytes of them may wait",
                    hint="nothing of this post was stored: post it again after `cumulant labels ingest`",
                    retry_after=_RETRY,
                )
            self._coming += whole

    def complete(self, size: int, *, written: bool) -> None:
        """Complete a reservation; unless the file was written, its space is released."""
        with self._lock:
            self._coming -= _blocks(size)
            self._used += _blocks(size) if written else 0

    def used(self) -> int:
        """Bytes in the folder at the last measurement, plus what was written here since.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._lock:
            self._measure()
            return self._used

    def _measure(self) -> None:
        begun = self._steady()
        if begun < self._next:
            return
        try:
            with os.scandir(self._folder) as entries:
                whole = (entry for entry in entries if not entry.name.startswith("."))  # others are being written
                self._used = sum(_blocks(_size(entry)) for entry in whole)
        except FileNotFoundError:
            self._used = 0
        now = self._steady()
        self._next = now + max(_LOOK, _SELDOM * (now - begun))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # taken in meanwhile
        return 0

"""The write-ahead journal of a part: rows are safe on the disk before their file of columns is written.

A record is the length of its payload, the CRC-32 of it, and the payload: a list of rows in MessagePack. The last record
may be incomplete after a kill; it was not confirmed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct as Layout
from typing import Any

import msgspec

from cumulant.core.system.atomic_files import sync
from cumulant.serving.prediction_log.storage import log_folder

Row = tuple[Any, ...]
RECORD = Layout("<II")
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only
_encode = msgspec.msgpack.Encoder().encode


class PartJournal:
    """The journal that this process writes, locked against recovery by others.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path, self._size = path, 0
        self._whole = True
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            sync(path.parent.parent)
        self._file = _locked(path)
        try:
            sync(path.parent)
        except OSError:
            self.remove()
            raise

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows and wait until they are on the disk.

        Raises:
            OSError: the disk is full or cannot be written; none of these rows is in the journal.
        """
        if not self._whole:
            raise OSError(errno.EIO, "the journal of the prediction log is damaged")
        payload = _encode(rows)
        data = RECORD.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            _write(self._file, data)
            _sync_data(self._file)
        except OSError:
            self._whole = False  # nothing may follow a record that is not whole
            os.ftruncate(self._file, self._size)
            self._whole = True
            raise
        self._size += len(data)
        self.rows += len(rows)

    def remove(self) -> None:
        """Delete the journal, whose rows are in a file by now.

        Raises:
            OSError: the file stays; nobody writes it any more.
        """
        try:
            self._path.unlink(missing_ok=True)  # before the lock is released: no recovery reads it
        finally:
            os.close(self._file)

    def leave(self, path: Path) -> None:
        """Leave the rows to the next recovery, under another name where it can be renamed."""
        with contextlib.suppress(OSError):
            self._path.rename(path)
        self.release()

    def release(self) -> None:
        """Leave the file as it is to the next recovery."""
        os.close(self._file)


def _locked(path: Path) -> int:
    """New file that is renamed once it is locked, so that no recovery takes it before."""
    draft = path.with_name(f"{path.name}{log_folder.WRITING}")
    file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(path)
    except OSError:
        os.close(file)
        draft.unlink(missing_ok=True)
        raise
    return file


@contextlib.contextmanager
def claim_journal(path: Path, age: float = 0.0) -> Iterator[bytes | None]:
    """Content of a journal without a writer; None where it is locked, recovered, or younger than `age` seconds."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    with open(file, "rb") as stream:  # noqa: PTH123 - the descriptor: the path may be another file by now
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file)
            here = os.path.samestat(status, path.stat())  # it may have been removed or renamed meanwhile
            here = here and abs(time.time() - status.st_mtime) >= age
        except (BlockingIOError, FileNotFoundError):
            here = False
        yield stream.read() if here else None


def _write(file: int, data: bytes) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(data):
            written += os.write(file, view[written:])

"""The write-ahead journal of a part: rows are safe on the disk before their file of columns is written.

A record is the length of its payload, the CRC-32 of it, and the payload: a list of rows in MessagePack. The last record
may be incomplete after a kill; nobody was told that it is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct as Layout
from typing import Any

import msgspec

from cumulant.serving.log.durable import sync

Row = tuple[Any, ...]
_RECORD = Layout("<II")
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Any, ...]]).decode


class Journal:
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
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        data = _RECORD.pack(len(payload), zlib.crc32(payload)) + payload
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
        """The rows are elsewhere by now.

        Raises:
            OSError: the file stays; nobody writes it any more.
        """
        os.close(self._file)
        self._path.unlink(missing_ok=True)

    def leave(self, path: Path) -> None:
        """Give the rows to the next recovery, under another name where it can be renamed."""
        with contextlib.suppress(OSError):
            self._path.rename(path)
        os.close(self._file)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[list[Row] | None]:
    """The rows of a journal that nobody writes any more; None where somebody does, or has recovered it."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here = os.path.samestat(os.fstat(file), path.stat())  # it may have been removed or renamed meanwhile
    except (BlockingIOError, FileNotFoundError):
        here = False
    try:
        yield list(_rows(path.read_bytes())) if here else None
    finally:
        os.close(file)


def _rows(data: bytes) -> Iterator[Row]:
    place = 0
    while place + _RECORD.size <= len(data):
        size, checksum = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        payload = data[place : place + size]
        # A file system that lost power may leave zeros at the end.
        if size == 0 or len(payload) < size or zlib.crc32(payload) != checksum:
            return
        yield from _decode(payload)
        place += size


def _write(file: int, data: bytes) -> None:
    with memoryview(data) as view:
        place = 0
        while place < len(data):
            place += os.write(file, view[place:])

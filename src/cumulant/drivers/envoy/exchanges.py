"""The exchanges on disk: numbered files of lines, which one gateway after the other writes and many read.

Each gateway begins a file of its own, so that half a line, where one was killed, ends a file and is never
continued. A cursor is `FILE:BYTE`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from cumulant.core.traffic import Exchange

_SIZE = 16 * 1024 * 1024
_KEPT = 16

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Exchange).decode


class Writer:
    """Appends to a file of its own. At most `kept` files of about `size` bytes stay."""

    def __init__(self, folder: Path, *, size: int = _SIZE, kept: int = _KEPT) -> None:
        self._folder = folder
        self._size = size
        self._kept = kept
        self._number = max(_numbers(folder), default=0)
        self._written = 0
        self._next()

    def write(self, exchanges: list[Exchange]) -> None:
        """Write all of `exchanges`, or raise `OSError`, after which the rest is left out."""
        if self._written > self._size:
            self.close()
            self._next()
        lines, done = b"".join(_encode(exchange) + b"\n" for exchange in exchanges), 0
        try:
            while done < len(lines):
                done += self._file.write(lines[done:])
        except OSError:
            self._cut(self._written + lines.rfind(b"\n", 0, done) + 1)
            raise
        self._written += len(lines)

    def _cut(self, size: int) -> None:
        """Half a line is never continued. Without a way back the file counts as full, and a new one is begun.

        Not for each failure: while a disk stays full, new files would push out all that was written.
        """
        self._written = self._size + 1
        with contextlib.suppress(OSError):
            self._file.truncate(size)
            self._file.seek(size)
            self._written = size

    def close(self) -> None:
        self._file.close()

    def _next(self) -> None:
        self._number += 1
        self._file = _path(self._folder, self._number).open("xb", buffering=0)
        os.fchmod(self._file.fileno(), 0o600)  # callers choose the names of their requests
        self._written = 0
        for number in sorted(_numbers(self._folder))[: -self._kept]:
            _path(self._folder, number).unlink(missing_ok=True)


def read(folder: Path, after: str, limit: int) -> tuple[list[Exchange], str]:
    """At most `limit` exchanges after the cursor `after`, oldest first, and the next cursor.

    What was removed before it was read is not told; the rest is.
    """
    number, _, byte = after.partition(":")
    at, offset = int(number or 0), int(byte or 0)
    found: list[Exchange] = []
    while len(found) < limit:
        # Looked at before the file is read: with a later file there, no more is written to this one.
        later = min((one for one in _numbers(folder) if one > at), default=None)
        lines, offset = _lines(_path(folder, at), offset, limit - len(found))
        found += lines
        if len(found) >= limit or later is None:
            break
        at, offset = later, 0
    return found, f"{at}:{offset}" if at else after


def _lines(path: Path, offset: int, limit: int) -> tuple[list[Exchange], int]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            found: list[Exchange] = []
            while len(found) < limit:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                found += _exchange(line)
                offset += len(line)
            return found, offset
    except FileNotFoundError:
        return [], offset


def _exchange(line: bytes) -> list[Exchange]:
    """The exchange in a line; none where a crash of the machine left something else there."""
    try:
        return [_decode(line)]
    except msgspec.DecodeError:
        return []


def _numbers(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.jsonl")]


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}.jsonl"

"""The exchange log on disk: numbered files of JSON lines, with one writer at a time and many readers.

Each gateway process starts a new file, so that an incomplete line, where a process was killed, ends a file and is
never continued. A cursor is `FILE:BYTE`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cumulant.core.system.atomic_files import storage_errors
from cumulant.core.traffic import Exchange

_SIZE = 16 * 1024 * 1024
_MOST_FILES = 16

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Exchange).decode


class ExchangeWriter:
    """Appends to a file of its own. At most `most_files` files of about `size` bytes remain."""

    def __init__(self, folder: Path, *, size: int = _SIZE, most_files: int = _MOST_FILES) -> None:
        self._folder = folder
        self._size = size
        self._most_files = most_files
        self._number = max(_numbers(folder), default=0)
        self._written = 0
        self._start_file()

    def write(self, exchanges: list[Exchange]) -> None:
        """Write all of `exchanges`, or raise `OSError`, after which the rest is discarded."""
        if self._written > self._size:
            self.close()
            self._start_file()
        lines, done = b"".join(_encode(exchange) + b"\n" for exchange in exchanges), 0
        try:
            while done < len(lines):
                done += self._file.write(lines[done:])
        except OSError:
            self._truncate(self._written + lines.rfind(b"\n", 0, done) + 1)
            raise
        self._written += len(lines)

    def _truncate(self, size: int) -> None:
        """Remove an incomplete line; if that fails the file counts as full, and a new one is started."""
        self._written = self._size + 1
        with contextlib.suppress(OSError):
            self._file.truncate(size)
            self._file.seek(size)
            self._written = size

    def close(self) -> None:
        self._file.close()

    def _start_file(self) -> None:
        self._number += 1
        self._file = _path(self._folder, self._number).open("xb", buffering=0)
        os.fchmod(self._file.fileno(), 0o600)  # callers choose the names of their requests
        self._written = 0
        for number in sorted(_numbers(self._folder))[: -self._most_files]:
            _path(self._folder, number).unlink(missing_ok=True)


def read_exchanges(folder: Path, after: str, limit: int) -> tuple[list[Exchange], str]:
    """At most `limit` exchanges after the cursor `after`, oldest first, and the next cursor.

    Exchanges that were removed before they were read are skipped. A cursor beyond the end of the log is of an earlier
    one, whose folder was removed or restored: all of this one is read.
    """
    number, _, byte = after.partition(":")
    at, offset = int(number or 0), int(byte or 0)
    if _is_beyond(folder, at, offset):
        at, offset = 0, 0
    exchanges: list[Exchange] = []
    while len(exchanges) < limit:
        # Checked before the file is read: once a later file exists, no more is written to this one.
        later = min((candidate for candidate in _numbers(folder) if candidate > at), default=None)
        lines, offset = _read_lines(_path(folder, at), offset, limit - len(exchanges))
        exchanges += lines
        if len(exchanges) >= limit or later is None:
            break
        at, offset = later, 0
    return exchanges, f"{at}:{offset}" if at else after


def _is_beyond(folder: Path, at: int, offset: int) -> bool:
    """Whether a place is behind all that the log holds; the files of one log are numbered upwards and never shrink."""
    newest = max(_numbers(folder), default=None)
    if newest is None or at != newest:
        return newest is not None and at > newest
    with contextlib.suppress(FileNotFoundError):
        return offset > _path(folder, at).stat().st_size
    return False


def erase_names(folder: Path, chosen: Callable[[Exchange], bool]) -> int:
    """Empty key and names of the chosen exchanges where they stand, so that no line moves; how many there were.

    The gateway may append to the newest file meanwhile. Raises StorageError.
    """
    count = 0
    for number in sorted(_numbers(folder)):
        path = _path(folder, number)
        with storage_errors(path), contextlib.suppress(FileNotFoundError), path.open("r+b", buffering=0) as file:
            erased = 0
            for offset, line in _complete_lines(file.read()):
                for exchange in filter(chosen, _decode_line(line)):
                    os.pwrite(file.fileno(), _encode(exchange.without_names()).ljust(len(line) - 1), offset)
                    erased += 1
            if erased:
                os.fsync(file.fileno())
            count += erased
    return count


def _complete_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line with its place; one that is still being written is left out."""
    offset = 0
    for line in content.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield offset, line
        offset += len(line)


def _read_lines(path: Path, offset: int, limit: int) -> tuple[list[Exchange], int]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            exchanges: list[Exchange] = []
            while len(exchanges) < limit:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                exchanges += _decode_line(line)
                offset += len(line)
            return exchanges, offset
    except FileNotFoundError:
        return [], offset


def _decode_line(line: bytes) -> list[Exchange]:
    """The exchange in a line; none if a crash of the machine damaged it."""
    try:
        return [_decode(line)]
    except msgspec.DecodeError:
        return []


def _numbers(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.jsonl")]


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}.jsonl"

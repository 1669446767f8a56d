"""The log of exchanges: lines of JSON in numbered files, written by the gateway, read by cursor by whoever counts."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from pathlib import Path

import msgspec

from cumulant.core.traffic import Exchange

#: seconds; what a killed gateway may lose
_FLUSH = 0.1
_MOST = 200_000
_FILE_BYTES = 16 * 1024 * 1024
_FILES = 32
_SUFFIX = ".jsonl"
_BLOCK = 1 << 20

_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(Exchange).decode


class ExchangeLog:
    """Writes on a thread of its own; each gateway begins a file of its own, so that a half line is never gone on with.

    What does not fit into memory or onto the disk is dropped and counted: requests go on.
    """

    def __init__(self, folder: Path, *, file_bytes: int = _FILE_BYTES, files: int = _FILES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._file_bytes, self._files = folder, file_bytes, files
        self._waiting: deque[Exchange] = deque()
        self.dropped = 0
        self._handle, self._size = -1, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exchange-log", daemon=True)
        self._thread.start()

    def put(self, exchange: Exchange) -> None:
        if len(self._waiting) < _MOST:
            self._waiting.append(exchange)
        else:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits."""
        self._ended.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._ended.wait(_FLUSH):
            self._flush()
        self._flush()
        if self._handle >= 0:
            os.close(self._handle)

    def _flush(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        try:
            self._write(_encode_lines(batch))
        except OSError:
            self.dropped += len(batch)

    def _write(self, lines: bytes) -> None:
        if self._handle < 0 or self._size >= self._file_bytes:
            self._next()
        done = 0
        try:
            while done < len(lines):
                done += os.write(self._handle, lines[done:])
        except OSError:
            self._cut(self._size + lines.rfind(b"\n", 0, done) + 1)
            raise
        self._size += len(lines)

    def _cut(self, size: int) -> None:
        """After a full disk took a part: readers wait for the end of a line, so none may stay half.

        The file is gone on with, since a new one for each failure would soon push out all that was written. Without a
        way back, the next flush begins a new one.
        """
        try:
            os.ftruncate(self._handle, size)
        except OSError:
            os.close(self._handle)
            self._handle = -1
        else:
            self._size = size

    def _next(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        present = numbers(self._folder)
        number = present[-1] + 1 if present else 1
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_EXCL
        self._handle, self._size = os.open(path_of(self._folder, number), flags, 0o600), 0
        for old in present[: max(0, len(present) + 1 - self._files)]:
            with contextlib.suppress(OSError):
                path_of(self._folder, old).unlink()


def numbers(folder: Path) -> list[int]:
    """Of the files that are kept, oldest first."""
    try:
        names = [path.stem for path in folder.iterdir() if path.suffix == _SUFFIX]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}{_SUFFIX}"


def read(folder: Path, after: str, limit: int) -> tuple[list[Exchange], str]:
    """What was written since the cursor `FILE:OFFSET`, and the next one. Half lines are left for later."""
    number, offset = _cursor(after)
    found: list[Exchange] = []
    # The list is taken first: a file with a later one is finished, so its end is the end.
    present = [one for one in numbers(folder) if one >= number]
    for one in present:
        if one != number:
            number, offset = one, 0
        offset = _read_file(path_of(folder, number), offset, limit, found)
        if len(found) >= limit:
            break
    return found, f"{number}:{offset}" if number else after


def _cursor(after: str) -> tuple[int, int]:
    number, _, offset = after.partition(":")
    return (int(number), int(offset)) if number.isdecimal() and offset.isdecimal() else (0, 0)


def _read_file(path: Path, offset: int, limit: int, found: list[Exchange]) -> int:
    """The offset behind the last whole line that was taken."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return offset
    with file:
        file.seek(offset)
        while len(found) < limit and (block := file.read(_BLOCK)):
            whole = block[: block.rfind(b"\n") + 1]
            if not whole:
                break
            for line in whole.splitlines(keepends=True)[: limit - len(found)]:
                offset += len(line)
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    found.append(_decode(line))
            file.seek(offset)
    return offset

"""Topics as folders: each partition is an append-only file of JSON lines, `TOPIC/PARTITION.jsonl`.

A position is a place in the file in bytes. A message is one line; the last line counts once its end is written. The
first write of a topic gives it a name of its own in `TOPIC/.topic`, which tells it from one that is made after it was
deleted. Files that others made, and files in the place of one, are told apart by what is before a position (`marks`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from cumulant.core.errors import NotFoundError, StorageError, UsageError, did_you_mean
from cumulant.core.system.atomic_files import sync
from cumulant.ports.streams import Bounds, LostMessagesError, Messages, check_position, no_partition

_TOPIC = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}")
#: the file with the name that a topic has from its first write on, and what stands for it where there is none
_NAME, _UNNAMED = ".topic", "folder"
_PARTITION = re.compile(r"(0|[1-9]\d{0,8})\.jsonl")
_BLOCK = 1 << 20
#: the most bytes of a line that are read: what is longer is no message that anybody meant, and comes without the rest
_LONGEST = 16 << 20
#: bytes at the beginning of a file, and before a position, by which it is known again
_MARKED = 16 << 10
#: seconds between two looks for new lines
_PAUSE = 0.05


class FolderStreams:
    """The topics below a folder. Writers of a partition are serialised by a lock on its file; readers need none."""

    def __init__(self, url: str) -> None:
        self._root = Path(url.partition("://")[2] or ".").expanduser()

    def identity(self, topic: str) -> str:
        self._files(topic)
        path = self._path(topic, 0).with_name(_NAME)
        try:
            return path.read_text(encoding="ascii") or _UNNAMED
        except FileNotFoundError:
            return _UNNAMED
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"topic {topic} cannot be read: {error}", subject=str(path)) from error

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._files(topic))

    def bounds(self, topic: str) -> dict[int, Bounds]:
        return {partition: Bounds(0, _end(path)) for partition, path in sorted(self._files(topic).items())}

    def marks(self, topic: str, positions: Mapping[int, int]) -> dict[int, str]:
        files = self._files(topic)
        marks = {number: _mark(files[number], place) for number, place in positions.items() if number in files}
        return {number: mark for number, mark in marks.items() if mark}

    @contextmanager
    def consume(self, topic: str, positions: Mapping[int, int]) -> Iterator[FolderConsumer]:
        bounds = self.bounds(topic)
        for partition, position in positions.items():
            if partition not in bounds:
                raise no_partition(topic, partition, sorted(bounds))
            check_position(topic, partition, position, bounds[partition])
        consumer = FolderConsumer(topic, {number: self._path(topic, number) for number in positions}, dict(positions))
        consumer.check()
        yield consumer

    def produce(self, topic: str, values: Iterable[bytes], *, partition: int) -> int:
        path = self._path(topic, partition)
        lines = list(values)
        if any(b"\n" in value for value in lines):
            raise UsageError("a message with a line end has no place in a file of lines", subject=topic)
        try:
            fresh = not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            if fresh:
                _name_topic(path)
            with path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = _last_line_end(file)
                if end != file.seek(0, os.SEEK_END):
                    file.truncate(end)  # what a killed writer began: nobody was told that it is there, nobody read it
                content = memoryview(b"".join(value + b"\n" for value in lines))
                while content:
                    content = content[file.write(content) :]
                os.fsync(file.fileno())
                end = file.seek(0, os.SEEK_END)
            if fresh:
                sync(path.parent)
        except OSError as error:
            raise _storage_error(error, f"messages of {topic} cannot be written", path) from error
        return end

    def lag(self, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
        files, counts = self._files(topic), {}
        for partition, position in positions.items():
            if partition not in files:
                raise no_partition(topic, partition, sorted(files))
            counts[partition] = _count_lines(files[partition], position)
        return counts

    def close(self) -> None:
        return

    def _path(self, topic: str, partition: int) -> Path:
        if not _TOPIC.fullmatch(topic):
            raise UsageError(
                f'no topic can be named "{topic}"',
                subject=topic,
                hint="letters, digits, `.`, `_` and `-`, not `.` first",
            )
        return self._root / topic / f"{partition}.jsonl"

    def _files(self, topic: str) -> dict[int, Path]:
        """The file of each partition. Raises NotFoundError."""
        folder = self._path(topic, 0).parent
        try:
            files = {int(match[1]): path for path in folder.iterdir() if (match := _PARTITION.fullmatch(path.name))}
        except (FileNotFoundError, NotADirectoryError):
            files = {}
        except OSError as error:
            raise _storage_error(error, f"topic {topic} cannot be read", folder) from error
        if not files and folder.is_dir():
            message = f'the folder of topic "{topic}" has no file of a partition: {folder}'
            raise NotFoundError(message, subject=topic, hint="its messages are lines of 0.jsonl, 1.jsonl, ... there")
        if not files:
            raise NotFoundError(f'there is no topic "{topic}"', subject=topic, hint=self._hint(topic))
        return files

    def _hint(self, topic: str) -> str:
        names = [path.name for path in self._root.iterdir() if path.is_dir()] if self._root.is_dir() else []
        return did_you_mean(topic, names) or f"a topic is a folder with files 0.jsonl, 1.jsonl, ... below {self._root}"


class FolderConsumer:
    """Reads partitions in turn, so that a long one does not hold up the others."""

    def __init__(self, topic: str, files: Mapping[int, Path], positions: dict[int, int]) -> None:
        self._topic, self._files, self._positions = topic, files, positions
        self._turn = list(files)
        #: of each partition that was read: its file, as the system numbers it, and up to where it has no further line
        self._file_ids: dict[int, int] = {}
        self._searched: dict[int, int] = {}

    def check(self) -> None:
        """Raises LostMessagesError: a file is not the one that was read before."""
        for partition in self._files:
            self._read_partition(partition, 0)

    def read(self, limit: int, seconds: float) -> list[Messages]:
        until = time.monotonic() + seconds
        while True:
            batch = self._read_now(limit)
            if batch or time.monotonic() >= until:
                return batch
            time.sleep(min(_PAUSE, max(until - time.monotonic(), 0.0)))

    def _read_now(self, limit: int) -> list[Messages]:
        batch: list[Messages] = []
        for partition in list(self._turn):
            if limit <= 0:
                break
            messages = self._read_partition(partition, limit)
            if messages is not None:
                limit -= messages.next - self._positions[partition]
                self._positions[partition] = messages.next
                batch.append(messages)
                self._turn.remove(partition)
                self._turn.append(partition)
        return batch

    def _read_partition(self, partition: int, limit: int) -> Messages | None:
        path, start = self._files[partition], self._positions[partition]
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                check_position(self._topic, partition, start, Bounds(0, status.st_size))
                first = self._file_ids.setdefault(partition, status.st_ino)
                if first != status.st_ino or not _begins_line(file, start):
                    raise _other_file(self._topic, partition)
                if not limit or status.st_size <= self._searched.get(partition, start):
                    return None
                content = file.read(limit)
                end = content.rfind(b"\n") + 1
                after = start + end
                if not end:  # one message above the limit, or one whose end is not written yet
                    searched = max(start + len(content), self._searched.get(partition, start))
                    after = _next_line_end(file, searched)
                    if not after:
                        self._searched[partition] = max(searched, status.st_size)
                        return None
                    file.seek(start)
                    content = file.read(min(after - start, _LONGEST + 1))
                    end = len(content)
        except FileNotFoundError:
            message = f'there is no partition {partition} of "{self._topic}" any more'
            hint = f"bring back {path}, or ingest from a topic of another name"
            raise NotFoundError(message, subject=self._topic, hint=hint) from None
        except OSError as error:
            raise _storage_error(error, f"messages of {self._topic} cannot be read", path) from error
        values = content[: end - 1].split(b"\n")
        places = list(accumulate((len(value) + 1 for value in values), initial=start))
        return Messages(partition, values, places[:-1], after)


def _name_topic(path: Path) -> None:
    """Name a topic that has no partition yet, of which this is the first; of several writers one does."""
    with path.with_name(_NAME).open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if any(_PARTITION.fullmatch(other.name) for other in path.parent.iterdir()):
            return
        file.truncate(0)
        file.write(uuid.uuid4().hex.encode())
        os.fsync(file.fileno())
        path.touch()


def _other_file(topic: str, partition: int) -> LostMessagesError:
    return LostMessagesError(
        f"the file of partition {partition} of {topic} is not the one that was read before",
        subject=topic,
        hint="only append to it; a file that was written anew needs a topic of another name",
    )


def _mark(path: Path, position: int) -> str:
    """A digest of the file's beginning and of what is before the position; empty where that is nothing, or more than
    there is.
    """
    size = min(position, _MARKED)
    try:
        with path.open("rb") as file:
            if not size or os.fstat(file.fileno()).st_size < position:
                return ""
            first = file.read(size)
            file.seek(position - size)
            return hashlib.sha256(first + file.read(size)).hexdigest()[:16]
    except OSError as error:
        raise _storage_error(error, "a partition cannot be read", path) from error


def _begins_line(file: BinaryIO, position: int) -> bool:
    """Whether a line begins at the position; the file is there afterwards."""
    file.seek(max(position - 1, 0))
    return not position or file.read(1) == b"\n"


def _next_line_end(file: BinaryIO, start: int) -> int:
    """The place after the next end of a line; 0 where there is none."""
    file.seek(start)
    while block := file.read(_BLOCK):
        place = block.find(b"\n")
        if place >= 0:
            return start + place + 1
        start += len(block)
    return 0


def _end(path: Path) -> int:
    """The place after the last whole line."""
    try:
        with path.open("rb") as file:
            return _last_line_end(file)
    except OSError as error:
        raise _storage_error(error, "a partition cannot be read", path) from error


def _last_line_end(file: BinaryIO) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - _BLOCK, 0)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _count_lines(path: Path, position: int) -> int:
    count = 0
    try:
        with path.open("rb") as file:
            file.seek(position)
            while block := file.read(_BLOCK):
                count += block.count(b"\n")
    except OSError as error:
        raise _storage_error(error, "a partition cannot be read", path) from error
    return count


def _storage_error(error: OSError, what: str, path: Path) -> StorageError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = "free some space" if full else "check the folder and its permissions"
    return StorageError(f"{what}: {error.strerror or error}", subject=str(path), hint=hint)

"""Frames on disk while more rows than fit in memory are processed: Parquet, or Arrow streams to append to.

Files are in a locked folder of the process, readable by its owner only; folders of killed processes are removed.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from cumulant.core.errors import StorageError
from cumulant.core.system.disk_errors import NO_ROOM, NOT_WRITABLE, disk_error
from cumulant.core.system.memory import resident_memory
from cumulant.core.system.temporary_folders import in_use, remove_abandoned

_ROW_GROUP = 65_536
#: whatever is free, so much is used: less would be spent on files
_LEAST = 64 << 20


class Spill:
    """Named frames in a folder. Of those that are appended, about `in_memory` bytes stay in memory."""

    def __init__(self, folder: Path, *, in_memory: int = 0) -> None:
        self._folder = folder
        #: each frame that was appended: what is in memory, or where it begins in the file and its bytes
        self._appended: dict[str, list[bytes | tuple[int, int]]] = defaultdict(list)
        self._appending = threading.Lock()
        self._free = in_memory

    def write(self, name: str, frame: pl.DataFrame | pl.LazyFrame) -> None:
        path = self._folder / name
        with _disk_errors(self._folder):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # Polars keeps the mode of a file
            if isinstance(frame, pl.LazyFrame):
                frame.sink_parquet(path, compression="lz4", row_group_size=_ROW_GROUP, maintain_order=True)
            else:
                frame.write_parquet(path, compression="lz4", row_group_size=_ROW_GROUP)

    def scan(self, name: str) -> pl.LazyFrame:
        return pl.scan_parquet(self._folder / name, glob=False, hive_partitioning=False)

    def read(self, name: str) -> pl.DataFrame:
        with _disk_errors(self._folder):
            return self.scan(name).collect()

    def write_arrow(self, name: str, frame: pl.LazyFrame) -> None:
        """As `write`, for `scan_arrow`: types that Parquet lacks are kept, such as a struct without fields."""
        path = self._folder / name
        with _disk_errors(self._folder):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            frame.sink_ipc(path, compression="lz4", maintain_order=True)

    def scan_arrow(self, name: str) -> pl.LazyFrame:
        return pl.scan_ipc(self._folder / name, glob=False)

    def append(self, name: str, frame: pl.DataFrame) -> None:
        """Add a frame to those under `name`. A small one costs a fifteenth of a Parquet file. From any thread."""
        if frame.estimated_size() <= self._free:  # as bytes, since a slice holds the rows that it is of
            written = arrow_stream(frame, "uncompressed")
            with self._appending:
                self._free -= len(written)
                self._appended[name].append(written)
            return
        written = arrow_stream(frame, "lz4")
        with self._appending:
            self._appended[name].append(self._write(name, written))

    def appended(self, name: str) -> Iterator[pl.DataFrame]:
        """The frames that were appended under `name`, in that order."""
        with _disk_errors(self._folder):
            for written in self._appended[name]:
                yield pl.read_ipc_stream(self._read(name, written))

    def release_memory(self) -> None:
        """Write the frames that are in memory, and from now on each that is appended."""
        with self._appending:
            self._free = 0
            for name, frames in self._appended.items():
                frames[:] = [self._write(name, each) if isinstance(each, bytes) else each for each in frames]

    def _read(self, name: str, written: bytes | tuple[int, int]) -> bytes:
        if isinstance(written, bytes):
            return written
        with (self._folder / name).open("rb") as file:
            file.seek(written[0])
            return file.read(written[1])

    def _write(self, name: str, frame: bytes) -> tuple[int, int]:
        with _disk_errors(self._folder), open(self._folder / name, "ab", opener=_owned) as file:
            return file.tell(), file.write(frame)

    @contextmanager
    def within(self, name: str) -> Iterator[Spill]:
        """A folder under `name` for other frames, removed at the end."""
        folder = self._folder / name
        with _disk_errors(self._folder):
            folder.mkdir(mode=0o700)
        try:
            yield Spill(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
            with self._appending:
                frames = self._appended.pop(name, ())
                self._free += sum(len(each) for each in frames if isinstance(each, bytes))


def arrow_stream(frame: pl.DataFrame, compression: Literal["uncompressed", "lz4"]) -> bytes:
    """A frame as bytes, which `pl.read_ipc_stream` reads. A slice is written without the rows that it is of."""
    stream = io.BytesIO()
    frame.write_ipc_stream(stream, compression=compression, compat_level=pl.CompatLevel.newest())
    return stream.getvalue()


def _owned(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def spill_in(root: Path | None, *, in_memory: int = 0) -> Iterator[Spill]:
    """A folder under `root` (None: the system's temporary folder), removed at the end.

    Raises:
        StorageError: no space, or the place cannot be written.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="cumulant-") as place:
            yield Spill(Path(place), in_memory=in_memory)
        return
    folder = root / uuid.uuid4().hex
    with _disk_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_abandoned(list(root.iterdir()))
        folder.mkdir(mode=0o700)
    try:
        with in_use(folder):
            yield Spill(folder, in_memory=in_memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _disk_errors(folder: Path) -> AbstractContextManager[None]:
    hint = "free some space there, or set resources.memory higher"
    what = "rows that do not fit in memory cannot be set aside on disk"
    return disk_errors(folder, what, no_room=hint, not_writable=hint)


@contextmanager
def disk_errors(folder: str | Path, what: str, *, no_room: str, not_writable: str) -> Iterator[None]:
    """Errors of a disk that is full or may not be written, by the system or by Polars, as StorageError; others pass."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        cause = disk_error(error)
        if cause is None or cause.errno not in NO_ROOM | NOT_WRITABLE:
            raise
        hint = no_room if cause.errno in NO_ROOM else not_writable
        raise StorageError(f"{what}: {cause.strerror or cause}", subject=str(folder), hint=hint) from error


class MemoryBudget(NamedTuple):
    """The memory that the process may hold, in bytes, and where rows are set aside (None: a temporary folder)."""

    memory: int
    scratch: Path | None = None

    @property
    def free(self) -> int:
        """Bytes that may still be taken."""
        return max(self.memory - resident_memory(), _LEAST)

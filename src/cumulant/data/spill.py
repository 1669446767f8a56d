"""Frames set aside on disk while more rows than fit in memory are worked on, in files that only their owner can read:
Parquet, of which columns and rows are read, or Arrow streams, to which many frames are added one after the other.

They lie in a folder of the process, which it locks and removes; what a killed process left the next one removes.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from cumulant.core.disk_errors import disk_error
from cumulant.core.errors import StorageError
from cumulant.core.temporary_folders import in_use, remove_abandoned

_ROW_GROUP = 65_536
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class Spill:
    """Named frames in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: bytes of each frame that was appended to a file
        self._appended: dict[str, list[int]] = defaultdict(list)
        self._appending = threading.Lock()

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
        stream = io.BytesIO()
        frame.write_ipc_stream(stream, compression="lz4", compat_level=pl.CompatLevel.newest())
        with self._appending, _disk_errors(self._folder), open(self._folder / name, "ab", opener=_owned) as file:
            self._appended[name].append(file.write(stream.getbuffer()))

    def appended(self, name: str) -> Iterator[pl.DataFrame]:
        """The frames that were appended under `name`, in that order."""
        with _disk_errors(self._folder), (self._folder / name).open("rb") as file:
            for size in self._appended[name]:
                yield pl.read_ipc_stream(io.BytesIO(file.read(size)))

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
            self._appended.pop(name, None)


def _owned(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def spill_in(root: Path | None) -> Iterator[Spill]:
    """A folder under `root` (None: where the system has temporary files), removed at the end.

    Raises:
        StorageError: no space, or the place cannot be written.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="cumulant-") as place:
            yield Spill(Path(place))
        return
    folder = root / uuid.uuid4().hex
    with _disk_errors(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_abandoned(list(root.iterdir()))
        folder.mkdir(mode=0o700)
    try:
        with in_use(folder):
            yield Spill(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the system says of a full or closed disk, in the words of Polars too, as StorageError; all else passes."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        cause = disk_error(error)
        if cause is None or cause.errno not in _OF_THE_DISK:
            raise
        raise StorageError(
            f"rows that do not fit in memory cannot be set aside on disk: {cause.strerror}",
            subject=str(folder),
            hint="free some space there, or set resources.memory higher",
        ) from error

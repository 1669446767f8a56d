"""Frames set aside on disk while more rows than fit in memory are worked on: Parquet files that only their owner can
read.

They lie in a folder of the process, which it locks and removes; what a killed process left the next one removes.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
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

    def read(self, names: Iterable[str]) -> pl.DataFrame:
        """The rows of some frames with the same columns, one after the other."""
        with _disk_errors(self._folder):
            return pl.concat([self.scan(name) for name in names]).collect()

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)


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

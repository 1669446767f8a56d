"""The rows of the prediction log as a pyarrow dataset, and its batches. Importing these parts of pyarrow takes half a
second: only readers of whole days need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cumulant.serving.prediction_log.storage.log_reader import damaged, days_of, whole
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA

if TYPE_CHECKING:
    import pyarrow.dataset as ds

#: files of so many days may still be merged
_MERGED_DAYS = 2
#: bytes of rows that are read ahead, about
_AHEAD = 32 << 20


def scan(folder: Path, *, since: date | None = None, until: date | None = None) -> ds.Dataset:
    """The rows of the days `since` to `until` as a pyarrow dataset, whose columns are `Prediction`'s fields.

    The dataset stays readable while the log goes on and merges its files; rows that come later are not in it.

    Raises:
        StorageError: the folder or a file cannot be read; damaged rows show when they are read, as by `batches`.
    """
    import pyarrow.dataset as ds

    found = []
    for day in days_of(folder, since, until):
        # Files of the last days may be merged while the dataset is read: held open, they stay.
        held = (datetime.now(UTC).date() - day).days < _MERGED_DAYS
        found += whole(folder, day, partial(_fragment, held=held))
    return ds.FileSystemDataset(found, SCHEMA, ds.ParquetFileFormat())


def _fragment(path: Path, *, held: bool) -> ds.Fragment:
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    kind = ds.ParquetFileFormat()
    try:
        found = kind.make_fragment(pa.memory_map(str(path)) if held else str(path), None if held else LocalFileSystem())
        found.ensure_complete_metadata()  # read in any case; here the file can be named
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    return found


def batches(
    folder: Path, columns: list[str], *, wanted: Any = None, since: date | None = None, until: date | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows of the days `since` to `until`, of those that meet the condition `wanted` of pyarrow.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    found = scan(folder, since=since, until=until)
    try:
        yield from batches_of(found, columns, wanted=wanted)
    except (OSError, pa.ArrowException) as error:
        raise damaged(folder, error) from error


def batches_of(found: ds.Dataset, columns: list[str], *, wanted: Any = None) -> Iterator[pa.RecordBatch]:
    """As `batches`, of what `scan` found. Raises OSError, ArrowException."""
    for some in _groups(found):
        yield from some.to_batches(columns=columns, filter=wanted)


def _groups(found: ds.Dataset) -> Iterator[ds.Dataset]:
    """The dataset in parts of a few row groups: of one, up to a GiB waits for a reader that is slower than the disk."""
    import pyarrow.dataset as ds

    gathered: list[ds.Fragment] = []
    size = 0
    for fragment in found.get_fragments():
        for part in fragment.split_by_row_group():
            gathered.append(part)
            size += sum(group.total_byte_size for group in part.row_groups)
            if size >= _AHEAD:
                yield ds.FileSystemDataset(gathered, SCHEMA, ds.ParquetFileFormat())
                gathered, size = [], 0
    if gathered:
        yield ds.FileSystemDataset(gathered, SCHEMA, ds.ParquetFileFormat())

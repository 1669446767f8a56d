"""The prediction log as a pyarrow dataset, and its batches.

Importing these parts of pyarrow takes half a second: only readers of whole days need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cumulant.serving.prediction_log.storage.log_reader import damaged_file, logged_days, read_day
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

    fragments = []
    for day in logged_days(folder, since, until):
        # Files of the last days may be merged while the dataset is read: held open, they stay.
        hold_open = (datetime.now(UTC).date() - day).days < _MERGED_DAYS
        fragments += read_day(folder, day, partial(_fragment, hold_open=hold_open))
    return ds.FileSystemDataset(fragments, SCHEMA, ds.ParquetFileFormat())


def _fragment(path: Path, *, hold_open: bool) -> ds.Fragment:
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    kind = ds.ParquetFileFormat()
    try:
        fragment = kind.make_fragment(
            pa.memory_map(str(path)) if hold_open else str(path), None if hold_open else LocalFileSystem()
        )
        fragment.ensure_complete_metadata()  # read in any case; here the file can be named
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(path, error) from error
    return fragment


def batches(
    folder: Path, columns: list[str], *, wanted: Any = None, since: date | None = None, until: date | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows of the days `since` to `until`, of those that meet the condition `wanted` of pyarrow.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    dataset = scan(folder, since=since, until=until)
    try:
        yield from batches_of(dataset, columns, wanted=wanted)
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(folder, error) from error


def batches_of(dataset: ds.Dataset, columns: list[str], *, wanted: Any = None) -> Iterator[pa.RecordBatch]:
    """As `batches`, of a dataset of `scan`. Raises OSError, ArrowException."""
    for group in _groups(dataset):
        yield from group.to_batches(columns=columns, filter=wanted)


def _groups(dataset: ds.Dataset) -> Iterator[ds.Dataset]:
    """The dataset in parts of a few row groups: of one, up to a GiB waits for a reader that is slower than the disk."""
    import pyarrow.dataset as ds

    gathered: list[ds.Fragment] = []
    size = 0
    for fragment in dataset.get_fragments():
        for part in fragment.split_by_row_group():
            gathered.append(part)
            size += sum(group.total_byte_size for group in part.row_groups)
            if size >= _AHEAD:
                yield ds.FileSystemDataset(gathered, SCHEMA, ds.ParquetFileFormat())
                gathered, size = [], 0
    if gathered:
        yield ds.FileSystemDataset(gathered, SCHEMA, ds.ParquetFileFormat())

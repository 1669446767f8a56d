"""The prediction log as a pyarrow dataset, and its batches.

Importing these parts of pyarrow takes half a second: only readers of whole days need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cumulant.ports.log import Log, PartInfo
from cumulant.serving.prediction_log.storage.log_reader import damaged_file, logged_days, map_file, read_day
from cumulant.serving.prediction_log.storage.part_writer import SCHEMA

if TYPE_CHECKING:
    import pyarrow.dataset as ds

#: bytes of rows that are read ahead, about
_AHEAD = 32 << 20


@dataclass(frozen=True)
class LogRows:
    """The rows of some days. They stay readable while the log goes on and merges its parts: each is open.

    Columns are `Prediction`'s fields; rows that come later are not in it.
    """

    log: Log
    fragments: list[ds.Fragment]

    @property
    def dataset(self) -> ds.Dataset:
        return _dataset(self.fragments)

    def batches(self, columns: list[str], *, wanted: Any = None) -> Iterator[pa.RecordBatch]:
        """Some columns of the rows that meet the condition `wanted` of pyarrow.

        Raises:
            StorageError: a part is damaged.
        """
        try:
            for group in _groups(self.fragments):
                yield from group.to_batches(columns=columns, filter=wanted)
        except (OSError, pa.ArrowException) as error:
            raise damaged_file(self.log, None, error) from error


def scan(log: Log, *, since: date | None = None, until: date | None = None) -> LogRows:
    """The rows of the days `since` to `until`.

    Raises:
        StorageError: the log or a part cannot be read; damaged rows show when they are read.
    """
    fragments = []
    for day in logged_days(log, since, until):
        fragments += read_day(log, day, partial(_open, log))
    return LogRows(log, fragments)


def _open(log: Log, part: PartInfo) -> ds.Fragment:
    import pyarrow.dataset as ds

    try:
        with log.open(part) as file:
            fragment = ds.ParquetFileFormat().make_fragment(map_file(file))
        fragment.ensure_complete_metadata()  # read in any case; here the part can be named
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged_file(log, part, error) from error
    return fragment


def batches(
    log: Log, columns: list[str], *, wanted: Any = None, since: date | None = None, until: date | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows of the days `since` to `until`, of those that meet the condition `wanted` of pyarrow.

    Raises:
        StorageError: the log or a part cannot be read.
    """
    yield from scan(log, since=since, until=until).batches(columns, wanted=wanted)


def _dataset(fragments: list[ds.Fragment]) -> ds.Dataset:
    import pyarrow.dataset as ds

    return ds.FileSystemDataset(fragments, SCHEMA, ds.ParquetFileFormat())


def _groups(fragments: list[ds.Fragment]) -> Iterator[ds.Dataset]:
    """The parts in groups of a few row groups: of one dataset, up to a GiB waits for a reader slower than the disk."""
    gathered: list[ds.Fragment] = []
    size = 0
    for fragment in fragments:
        for group in fragment.split_by_row_group():
            gathered.append(group)
            size += sum(rows.total_byte_size for rows in group.row_groups)
            if size >= _AHEAD:
                yield _dataset(gathered)
                gathered, size = [], 0
    if gathered:
        yield _dataset(gathered)

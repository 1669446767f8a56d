"""The folder of outcomes; everything is written to it whole, durably and once.

labels/NAME/00000.parquet  the labels of one file or one batch of posts; the folder appears by one renaming
labels/NAME/file.json      the facts of that file; NAME is the hash of its content
labels/merged-LEVEL-*/     the labels of many of them; until they are removed, those it covers hold nothing new
joined/FIRST-LAST.parquet  predictions in the order in which their labels were found, numbered from 1
pairs/, graded/            mirrored requests that both arms scored, and those with a label, in the same way
inbox/*.jsonl              labels that a server received; claimed/ holds those that are being ingested
writing/                   in the making; nothing reads it
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cumulant.core.errors import LeaseHeldError, StorageError
from cumulant.core.system.atomic_files import atomic_draft, replace_file, sync
from cumulant.core.system.locks import lock_file
from cumulant.outcomes.labels.outcome_folder import LABELS, WRITING, IngestedFile

if TYPE_CHECKING:
    import polars as pl

_TIME = pa.timestamp("us", "UTC")
#: one row of a label file: a label, or what could not be one and why
FACTS = pa.schema(
    [
        pa.field("ref", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("known_time", _TIME, nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("row", pa.int32()),
        pa.field("key", pa.string()),
        pa.field("event_time", _TIME),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("received", _TIME, nullable=False),
    ]
)
_PATIENCE = 60.0


@contextlib.contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """System errors of writing as StorageErrors that say what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"outcomes cannot be written: {error.strerror or error}",
            subject=str(place),
            hint="nothing of it was ingested: free space or fix the permissions, and run it again",
        ) from error


@contextlib.contextmanager
def lock_folder(folder: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Exclusive lock on `folder` among all processes of this machine; a killed one releases it.

    Raises:
        LeaseHeldError: another one has held it for `patience` seconds.
        StorageError: the folder cannot be written.
    """
    busy = LeaseHeldError("another process is ingesting labels", subject=str(folder), hint="try again when it is done")
    with contextlib.ExitStack() as stack:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(folder / ".lock", busy, wait=patience))
        yield


def write_table(path: Path, table: pa.Table, metadata: dict[str, str] | None = None) -> None:
    """Put a Parquet file in place whole. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_draft(path) as draft:
        pq.write_table(table.replace_schema_metadata(metadata), draft, compression="zstd", compression_level=1)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A file of this folder.

    Raises:
        FileNotFoundError: it is not there any more.
        StorageError: it is damaged or cannot be read.
    """
    with _open_parquet(path) as file:
        return file.read(columns=columns)


def may_hold(path: Path, column: str, wanted: pl.Series) -> bool:
    """Whether a column of a file of this folder may have one of these whole numbers, by its least and greatest.

    Raises:
        FileNotFoundError, StorageError: as `read_table`.
    """
    with _open_parquet(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        place = file.schema.names.index(column)
        ranges = [group.column(place).statistics for group in groups]
    return any(
        statistics is None or not statistics.has_min_max or wanted.is_between(statistics.min, statistics.max).any()
        for statistics in ranges
    )


@contextlib.contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"a file of the outcomes cannot be read: {error}",
            subject=str(path),
            hint="remove the folder or file that holds it, and ingest the labels again",
        ) from error


class BatchWriter:
    """One file's rows on their way in; visible when it is finished, all at once."""

    def __init__(self, folder: Path, content: str) -> None:
        self._final, self._draft = folder / LABELS / content, folder / WRITING / content
        self._parts = 0

    def __enter__(self) -> Self:
        with writing_to(self._draft):
            # Whatever is there, a killed process left it: the caller holds the lock.
            shutil.rmtree(self._draft.parent, ignore_errors=True)
            self._draft.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def add(self, columns: dict[str, list[Any]]) -> None:
        """Raises StorageError."""
        import polars as pl  # pyarrow imports pandas to take Python values, which takes 0.2 CPU s

        types = pl.DataFrame(pa.Table.from_batches([], FACTS)).schema
        frame = pl.DataFrame({name: columns[name] for name in FACTS.names}, schema=types)
        self.add_table(frame.to_arrow().cast(FACTS))

    def add_table(self, table: pa.Table) -> None:
        """Raises StorageError."""
        with writing_to(self._final):
            write_table(self._draft / f"{self._parts:05d}.parquet", table)
        self._parts += 1

    def finish(self, ingested: IngestedFile) -> None:
        """Raises StorageError."""
        with writing_to(self._final):
            replace_file(self._draft / "file.json", msgspec.json.encode(ingested))
            self._final.parent.mkdir(exist_ok=True)
            self._draft.rename(self._final)
            sync(self._final.parent)

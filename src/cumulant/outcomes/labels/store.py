"""Parquet parts of the logs of outcomes: the columns of labels, and how a part is written and read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cumulant.outcomes.labels.batches import FACTS_KEY, IngestedFile, batch_part, unreadable_part
from cumulant.outcomes.logs import writing_to
from cumulant.ports.log import Log, PartInfo
from cumulant.ports.tables import PROTECT, Protection

if TYPE_CHECKING:
    import polars as pl

_TIME = pa.timestamp("us", "UTC")
#: how the logs' parts are compressed
_COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 1}


def protect(columns: Sequence[str]) -> dict[str, str]:
    """The metadata of a schema whose columns name persons, by keyed hashes, or hold what was answered them."""
    return {PROTECT: msgspec.json.encode(Protection(columns=tuple(columns))).decode()}


#: one row of a batch: a label, or what could not be one and why
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
    ],
    protect(("ref", "key")),
)


@contextlib.contextmanager
def part_writer(log: Log, part: PartInfo, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of the part's row groups; the part appears when the block ends without an error.

    Raises:
        StorageError, EngineUnavailableError: as `Log.append`.
    """
    with (
        writing_to(log.location),
        log.append(part) as stream,
        pq.ParquetWriter(stream, schema, **_COMPRESSION) as writer,
    ):
        yield writer


def read_part(log: Log, part: PartInfo, columns: list[str] | None = None) -> pa.Table:
    """The rows of a part.

    Raises:
        FileNotFoundError: it is not there any more.
        StorageError: it is damaged or cannot be read.
    """
    with open_part(log, part) as file:
        return file.read(columns=columns)


def filter_part(log: Log, part: PartInfo, keep: pl.Expr) -> None:
    """Replace a part by its rows for which `keep` holds; what its metadata say of it stays.

    Raises:
        FileNotFoundError, StorageError: as `read_part`; the part is as it was.
    """
    import polars as pl

    with open_part(log, part) as file, writing_to(log.location), log.replace(part) as stream:
        schema, known = file.schema_arrow, file.metadata.metadata or {}
        others = known.keys() - (schema.metadata or {}).keys() - {b"ARROW:schema"}
        with pq.ParquetWriter(stream, schema, **_COMPRESSION) as writer:
            writer.add_key_value_metadata({name.decode(): known[name].decode() for name in others})
            for group in range(file.num_row_groups):
                rows = pl.DataFrame(file.read_row_group(group)).filter(keep)
                writer.write_table(rows.to_arrow().cast(schema))


def may_hold(log: Log, part: PartInfo, column: str, wanted: pl.Series) -> bool:
    """Whether a column of a part may have one of these whole numbers, by its least and greatest.

    Raises:
        FileNotFoundError, StorageError: as `read_part`.
    """
    with open_part(log, part) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        place = file.schema.names.index(column)
        ranges = [group.column(place).statistics for group in groups]
    return any(
        statistics is None or not statistics.has_min_max or wanted.is_between(statistics.min, statistics.max).any()
        for statistics in ranges
    )


@contextlib.contextmanager
def open_part(log: Log, part: PartInfo) -> Iterator[pq.ParquetFile]:
    """Raises FileNotFoundError, StorageError: as `read_part`."""
    with log.open(part) as stream:
        try:
            with pq.ParquetFile(stream) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise unreadable_part(log, part, error) from error


class BatchWriter:
    """The rows of one batch on their way in; `facts` must be set before the block ends, and then all are visible."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self.facts: IngestedFile | None = None

    def add(self, columns: dict[str, list[Any]]) -> None:
        """Raises StorageError."""
        import polars as pl  # pyarrow imports pandas to take Python values, which takes 0.2 CPU s

        types = pl.DataFrame(pa.Table.from_batches([], FACTS)).schema
        frame = pl.DataFrame({name: columns[name] for name in FACTS.names}, schema=types)
        self.add_table(frame.to_arrow().cast(FACTS))

    def add_table(self, table: pa.Table) -> None:
        """Raises StorageError."""
        self._writer.write_table(table)


@contextlib.contextmanager
def batch_writer(labels: Log, name: str) -> Iterator[BatchWriter]:
    """Write the batch of that name; where another process has written it meanwhile, that one stays.

    Raises:
        StorageError, EngineUnavailableError: as `Log.append`; nothing of it was stored.
    """
    with part_writer(labels, batch_part(name), FACTS) as writer:
        batch = BatchWriter(writer)
        yield batch
        writer.add_key_value_metadata({FACTS_KEY: msgspec.json.encode(batch.facts).decode()})

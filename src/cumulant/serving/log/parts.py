"""Writing rows: columns in memory, row groups in a file that nobody sees, and a whole file by one renaming."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cumulant.serving.log import place
from cumulant.serving.log.durable import sync
from cumulant.serving.log.entry import Entry, Like
from cumulant.serving.log.hiding import Hiding
from cumulant.serving.log.rows import texts
from cumulant.serving.log.streams import Stream

DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_TIME = pa.timestamp("us", "UTC")
#: the columns: the fields of `core.prediction.Prediction`, times as timestamps
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("time", _TIME, nullable=False),
        pa.field("event_time", _TIME),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("served_arm", pa.string(), nullable=False),
        pa.field("shadow", pa.bool_(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("state_age", pa.float64()),
        pa.field("request", pa.string(), nullable=False),
        pa.field("outputs", pa.string(), nullable=False),
        pa.field("latency_us", pa.int64(), nullable=False),
        pa.field("fallback", pa.string(), nullable=False),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("region", pa.string(), nullable=False),
        # null in files of older versions
        pa.field("caller_id", pa.string()),
        pa.field("invalid", pa.string()),
    ]
)
#: values that repeat from row to row
_REPEATED = ["model", "version", "arm", "served_arm", "fingerprint", "fallback", "worker", "tenant", "region"]
OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": _REPEATED}
#: of a row group in memory
GROUP_ROWS = 16_384
GROUP_BYTES = 4 * 1024 * 1024
#: of what is made columns at once: rows as objects take several times as much memory
_BATCH_ROWS = 1024
_BATCH_BYTES = 1024 * 1024


def with_all_columns(table: pa.Table) -> pa.Table:
    """The rows of a file by the columns of today: those that an older version did not write are null."""
    for field in SCHEMA:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names)


class Part:
    """The rows of one day since the last file was closed."""

    def __init__(self, folder: Path, day: int, life: str, number: int) -> None:
        self.day = date.fromordinal(_EPOCH_ORDINAL + day)
        self.rows = 0
        self._folder, self._life, self._number = folder, life, number
        self._writing = place.writing_path(folder, self.day, life, number)
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[tuple[Any, ...]] = []
        self._likes: dict[Stream, list[Like]] = {}
        self._waiting = self._bytes = 0
        #: of the next row group
        self._batches: list[pa.RecordBatch] = []
        self._group_rows = self._group_bytes = 0

    @property
    def size(self) -> int:
        """Bytes in the file so far."""
        return self._writing.stat().st_size if self._writer is not None else 0

    def add(self, row: tuple[Any, ...], size: int) -> bool:
        """Take one row, in the order of the schema; `size` is about its length in bytes. Whether a group was written.

        Raises:
            OSError: the disk is full or cannot be written; the part is spoilt.
        """
        self._rows.append(row)
        return self._took(1, size)

    def add_like(self, like: Like, stream: Stream, rows: int) -> bool:
        """Take the rows of a matrix, as `add`."""
        likes = self._likes.get(stream)
        if likes is None:
            likes = self._likes[stream] = []
        likes.append(like)
        return self._took(rows, len(like.asked) + len(like.answered))

    def _took(self, rows: int, size: int) -> bool:
        self.rows += rows
        self._waiting += rows
        self._bytes += size
        if self._waiting < _BATCH_ROWS and self._bytes < _BATCH_BYTES:
            return False
        self._seal()
        if self._group_rows < GROUP_ROWS and self._group_bytes < GROUP_BYTES:
            return False
        self._write()
        return True

    def close(self) -> None:
        """Make the rows visible as one file.

        Raises:
            OSError: as `add`.
        """
        self._seal()
        self._write()
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        sync(self._writing)
        self._writing.rename(place.part_path(self._folder, self.day, self._life, self._number, self._number))

    def discard(self) -> None:
        """Drop the rows and what was written of them."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                writer.close()
        with contextlib.suppress(OSError):
            self._writing.unlink(missing_ok=True)

    def _seal(self) -> None:
        """Make columns of what came."""
        made = [stream.columns(likes, SCHEMA) for stream, likes in self._likes.items()]
        if self._rows:
            columns = zip(*self._rows, strict=True)
            made.append([pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)])
        self._rows, self._likes = [], {}
        self._waiting = self._bytes = 0
        for arrays in made:
            batch = pa.record_batch(arrays, schema=SCHEMA)
            self._batches.append(batch)
            self._group_rows += len(batch)
            self._group_bytes += batch.nbytes

    def _write(self) -> None:
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        self._batches = []
        self._group_rows = self._group_bytes = 0
        if self._writer is None:
            self._writing.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._writing, SCHEMA, **OPTIONS)
        self._writer.write_table(table, row_group_size=len(table))


class Parts:
    """Rows of any day on their way to files. Rows that cannot be written are dropped and counted."""

    def __init__(self, folder: Path, hiding: Hiding, *, file_size: int, failed: Callable[[OSError, int], None]) -> None:
        """`failed` is told of each failure to write, and how many rows it cost."""
        self.written = 0
        self._folder, self._hiding, self._file_size, self._failed = folder, hiding, file_size, failed
        self._life = f"{datetime.now(UTC):%Y%m%dT%H%M%S}.{os.getpid()}.{secrets.token_hex(3)}"
        self._open: dict[int, Part] = {}
        self._number = 0

    def add(self, entry: Entry, worker: str, region: str) -> None:
        """Take the rows of one entry.

        Raises:
            ValueError: it is not what it says it is; nothing of it was taken.
        """
        day = entry.time_us // DAY_US
        found = texts(entry, self._hiding.of(entry.model))
        times, ages, invalid = entry.event_times or (), entry.ages or (), entry.invalid
        for number, (request, outputs) in enumerate(found):
            row = (
                entry.id, number, entry.time_us, times[number] if number < len(times) else None,
                entry.model, entry.version, entry.arm, entry.served_arm, entry.shadow, entry.fingerprint,
                ages[number] if number < len(ages) else None, request, outputs, entry.latency_us, entry.fallback,
                worker, entry.sequence, entry.tenant, region, entry.caller_id,
                invalid[number] if number < len(invalid) else "",
            )  # fmt: skip
            self._add(day, partial(Part.add, row=row, size=len(request) + len(outputs) + 200))

    def add_like(self, like: Like, stream: Stream) -> None:
        """Take the rows of an entry that follows a pattern, as `add`."""
        rows = stream.rows(like)
        if not 1 <= rows <= _BATCH_ROWS or self._hiding.of(stream.entry.model) is not None:
            self.add(stream.whole(like), stream.worker, stream.region)
            return
        self._add(like.time_us // DAY_US, partial(Part.add_like, like=like, stream=stream, rows=rows))

    def close(self) -> None:
        """Make all rows visible."""
        for day in list(self._open):
            self._close(day)

    def _add(self, day: int, add: Callable[[Part], bool]) -> None:
        part = self._open.get(day)
        if part is None:
            self._number += 1
            part = self._open[day] = Part(self._folder, day, self._life, self._number)
        try:
            written = add(part)
        except OSError as error:
            self._spoilt(day, error)
            return
        if written and part.size >= self._file_size:
            self._close(day)

    def _close(self, day: int) -> None:
        part = self._open[day]
        try:
            part.close()
        except OSError as error:
            self._spoilt(day, error)
            return
        self.written += part.rows
        del self._open[day]

    def _spoilt(self, day: int, error: OSError) -> None:
        part = self._open.pop(day)
        part.discard()
        self._failed(error, part.rows)

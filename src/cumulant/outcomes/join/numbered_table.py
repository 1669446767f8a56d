"""A table that only grows, as parts of a log: appended whole and once, read from a cursor on, on any machine.

Each append has a number, and its part can be created once. So of two processes that append at the same time one
finds that the other was faster, and both agree on the order. Small parts are merged; each row keeps the number of its
append, so that a reader whose cursor lies within a merged part reads the rest of it alone.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

import polars as pl
import pyarrow as pa

from cumulant.core.errors import LeaseHeldError, UsageError
from cumulant.outcomes.join.log_rows import as_frame
from cumulant.outcomes.labels.store import may_hold, open_part, part_writer, protect, read_part
from cumulant.outcomes.logs import LISTINGS, vanishing_parts_error
from cumulant.ports.log import UNDATED, Log, LogCursor, PartInfo, split_covered

#: bytes below which parts are merged, and how many of them become one
_SMALL, _MANY = 1 << 20, 16
#: rows of one append, and rows whose identities are held while parts are not listed again
_LARGE, _HELD = 65_536, 1 << 20
#: of every identity: the rows of a part have numbers near each other
_COUNTED = "sequence"
#: the number of a row's append
_APPEND = "append"
_WRITER = "cumulant.writer"


class TableParts:
    """The parts of the tables of one log: listed at each use, and at most twice while one process joins.

    Raises, in every method:
        StorageError, EngineUnavailableError: as `Log`.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self._joining = False
        self._listed: list[PartInfo] | None = None
        self._own: list[PartInfo] = []
        self._rows: list[tuple[str, pl.DataFrame]] = []

    def of(self, table: str) -> list[PartInfo]:
        """The parts of a table."""
        parts = self.listed()
        keys = {part.key for part in parts}
        return [part for part in (*parts, *(own for own in self._own if own.key not in keys)) if part.life == table]

    def listed(self) -> list[PartInfo]:
        """The parts of all tables, in a block of `joining` those that the last list had."""
        parts = self._listed
        if parts is None:
            parts = self.log.parts(UNDATED)
            self._listed = parts if self._joining else None
        return parts

    def appended(self, table: str) -> list[pl.DataFrame]:
        """The identities of rows that this process has appended since the last list."""
        return [rows for name, rows in self._rows if name == table]

    def add(self, part: PartInfo, rows: pl.DataFrame) -> None:
        """A part that this process has appended, and the identities of its rows."""
        if self._joining:
            self._own.append(part)
            self._rows.append((part.life, rows))
            if sum(frame.height for _, frame in self._rows) > _HELD:
                self._listed, self._rows = None, []

    @contextmanager
    def joining(self) -> Iterator[None]:
        """For the holder of the lease: what was listed stays valid in the block, as no other process appends."""
        self._joining = True
        try:
            yield
        finally:
            self._joining, self._listed, self._own, self._rows = False, None, [], []

    def confirm(self) -> None:
        """List again, and check that what was appended in this block is current.

        Raises:
            LeaseHeldError: another process has appended and merged meanwhile, as if this one had ended.
        """
        self._listed = self.log.parts(UNDATED)
        current = {part.key for part in split_covered(self._listed)[0]}
        if any(part.key not in current for part in self._own):
            raise _append_refused(self.log)
        self._own, self._rows = [], []


class NumberedTable:
    """Rows of `schema` in a log, where the table is called `name`; `identity` are the columns that identify a row,
    `sequence` among them.

    Raises, in every method:
        StorageError, EngineUnavailableError: as `Log`.
    """

    def __init__(self, parts: TableParts, name: str, schema: pa.Schema, identity: list[str]) -> None:
        self._all, self._log = parts, parts.log
        self._name, self._schema, self._identity = name, schema, identity
        answers = [column for column in schema.names if column.endswith("outputs")]
        self._stored = pa.schema([*schema, pa.field(_APPEND, pa.int64(), nullable=False)], protect(answers))

    @property
    def columns(self) -> list[str]:
        return list(self._schema.names)

    @property
    def last(self) -> int:
        """The number of the newest append; 0 where there is none."""
        return max((part.last for part in self._parts()), default=0)

    @property
    def end(self) -> str:
        """The cursor after the newest row."""
        return self._cursor(self.last)

    def append(self, frame: pl.DataFrame) -> int:
        """Add the rows that are not there yet; returns their number.

        Raises:
            LeaseHeldError: another process has appended meanwhile; nothing of `frame` was, or a part of it.
        """
        if not frame.height:
            return 0
        fresh = self._unknown(frame.unique(self._identity, keep="first", maintain_order=True))
        for rows in fresh.select(self._schema.names).iter_slices(_LARGE):
            self._add(rows)
        return fresh.height

    def _add(self, rows: pl.DataFrame) -> None:
        number, writer = self.last + 1, uuid.uuid4().hex
        part = PartInfo(UNDATED, self._name, number, number)
        table = rows.with_columns(pl.lit(number, pl.Int64).alias(_APPEND)).to_arrow().cast(self._stored)
        with part_writer(self._log, part, self._stored) as file:
            file.write_table(table)
            file.add_key_value_metadata({_WRITER: writer})
        # Of one name there is one content: of another process, if it was faster.
        with contextlib.suppress(FileNotFoundError), open_part(self._log, part) as stored:
            if (stored.metadata.metadata or {}).get(_WRITER.encode()) == writer.encode():
                self._all.add(part, rows.select(self._identity))
                return
        raise _append_refused(self._log)

    def since(self, cursor: str = "", *, limit: int | None = None) -> tuple[pl.DataFrame, str]:
        """Rows after the cursor, at most `limit` or those of one append, and the cursor to go on from.

        Raises:
            UsageError: it is no cursor of this table.
        """
        after = self._position(cursor)
        for _ in range(LISTINGS):
            with contextlib.suppress(FileNotFoundError):
                return self._since(after, limit)
        raise vanishing_parts_error(self._log)

    def _since(self, after: int, limit: int | None) -> tuple[pl.DataFrame, str]:
        frames: list[pl.DataFrame] = []
        height = 0
        for number, rows in self._appends(after):
            if limit is not None and frames and height + rows.height > limit:
                break
            frames.append(rows)
            height, after = height + rows.height, number
        return (pl.concat(frames) if frames else self._empty()), self._cursor(after)

    def newest(self, limit: int) -> pl.DataFrame:
        """The newest rows, at most `limit`, oldest first."""
        for _ in range(LISTINGS):
            with contextlib.suppress(FileNotFoundError):
                return self._newest(limit)
        raise vanishing_parts_error(self._log)

    def _newest(self, limit: int) -> pl.DataFrame:
        frames: list[pl.DataFrame] = []
        for part in reversed(self._parts()):
            if sum(frame.height for frame in frames) >= limit:
                break
            frames.insert(0, self._read(part).select(self._schema.names))
        return pl.concat([self._empty(), *frames]).tail(limit)

    def frames(self, columns: list[str] | None = None, *, after: int = 0) -> Iterator[pl.DataFrame]:
        """The rows of later appends than the one numbered `after`, a part at a time; in one process that appends."""
        for part in self._parts():
            if part.last > after:
                rows = self._read(part).filter(pl.col(_APPEND) > after)
                yield rows.select(columns or self._schema.names)

    def compact(self) -> None:
        """Merge the newest parts where many are small, and delete what was merged; for one process at a time."""
        current, covered = split_covered(self._all.of(self._name))
        old = time.time() - self._log.grace
        merged = [part for part in current if part.modified <= old]
        self._log.delete([part for part in covered if any(wide.covers(part) for wide in merged)])
        newest_first = sorted(current, key=lambda part: -part.first)
        run = list(takewhile(lambda part: part.bytes < _SMALL, newest_first))[::-1]
        if len(run) >= _MANY:
            part = PartInfo(UNDATED, self._name, run[0].first, run[-1].last)
            with part_writer(self._log, part, self._stored) as file:
                for small in run:
                    file.write_table(self._read(small).to_arrow().cast(self._stored))
            if not self._log.grace:
                self._log.delete(run)

    def _appends(self, after: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows of each later append, with its number. Raises FileNotFoundError."""
        for part in self._parts():
            if part.last > after:
                rows = self._read(part).filter(pl.col(_APPEND) > after)
                for (number,), some in rows.partition_by(_APPEND, as_dict=True, maintain_order=True).items():
                    assert isinstance(number, int)
                    yield number, some.select(self._schema.names)

    def _unknown(self, frame: pl.DataFrame) -> pl.DataFrame:
        for known in self._all.appended(self._name):
            frame = self._without(frame, known)
        listed = [part for part in self._all.listed() if part.life == self._name]
        for part in split_covered(listed)[0]:
            if not frame.height:
                break
            if may_hold(self._log, part, _COUNTED, frame[_COUNTED]):
                frame = self._without(frame, as_frame(read_part(self._log, part, self._identity)))
        return frame

    def _without(self, frame: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        return frame.join(known, on=self._identity, how="anti", nulls_equal=True, maintain_order="left")

    def _read(self, part: PartInfo) -> pl.DataFrame:
        return as_frame(read_part(self._log, part))

    def _empty(self) -> pl.DataFrame:
        return as_frame(pa.Table.from_batches([], self._schema))

    def _parts(self) -> list[PartInfo]:
        """The current parts in the order of their appends."""
        return sorted(split_covered(self._all.of(self._name))[0], key=lambda part: part.first)

    def _cursor(self, number: int) -> str:
        cursor = LogCursor()
        if number:
            cursor.add(PartInfo(UNDATED, self._name, 1, number))
        return cursor.text

    def _position(self, cursor: str) -> int:
        """The number of the append up to which a cursor has read."""
        intervals = LogCursor.parse(cursor).intervals.get(f"{UNDATED}/{self._name}", [])
        if len(intervals) > 1 or any(first != 1 for first, _ in intervals):
            raise UsageError("this text is no cursor of these rows", subject=cursor[:40])
        return intervals[0][1] if intervals else 0


def _append_refused(log: Log) -> LeaseHeldError:
    return LeaseHeldError(
        "another process joins labels with predictions",
        subject=log.location,
        hint="try again when it is done",
    )

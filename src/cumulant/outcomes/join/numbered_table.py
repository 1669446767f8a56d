"""A table that only grows: rows numbered from 1 in files that appear whole, read from a cursor on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from cumulant.outcomes.join.log_rows import as_frame
from cumulant.outcomes.labels import outcome_folder
from cumulant.outcomes.labels.store import may_hold, read_table, write_table, writing_to

#: rows of a last file that is written again when some are added
_SMALL = 8_192
#: rows that are added to a file at once
_LARGE = 65_536
#: of every identity: the rows of a file have numbers near each other
_COUNTED = "sequence"
_FILE = re.compile(r"(\d{12})-(\d{12})\.parquet")


class _Part(NamedTuple):
    first: int
    last: int
    path: Path


class NumberedTable:
    """Rows of `schema` in `folder`; `identity` are the columns that identify a row, `sequence` among them."""

    def __init__(self, folder: Path, schema: pa.Schema, identity: list[str]) -> None:
        self._folder, self._schema, self._identity = folder, schema, identity

    @property
    def last(self) -> int:
        """The number of the newest row; 0 where there is none."""
        return max((part.last for part in self._parts()), default=0)

    def append(self, frame: pl.DataFrame) -> int:
        """Add the rows that are not there yet; returns their number.

        Raises:
            StorageError: they cannot be written; those that are there are known the next time.
        """
        if not frame.height:
            return 0
        fresh = self._unknown(frame.unique(self._identity, keep="first", maintain_order=True))
        for rows in fresh.select(self._schema.names).iter_slices(_LARGE):
            self._add(rows.to_arrow().cast(self._schema))
        return fresh.height

    def _add(self, table: pa.Table) -> None:
        before = self._parts()[-1:]
        first = before[0].last + 1 if before else 1
        last = first + table.num_rows - 1
        # A small last file is written again with the new rows, so that many small additions are few files.
        joins = [part for part in before if part.last - part.first < _SMALL]
        if joins:
            first = joins[0].first
            table = pa.concat_tables([self._read(joins[0]).cast(self._schema), table])
        with writing_to(self._folder):
            write_table(self._folder / f"{first:012d}-{last:012d}.parquet", table)
            for part in joins:
                part.path.unlink(missing_ok=True)

    def since(self, cursor: int, *, limit: int | None = None) -> tuple[pl.DataFrame, int]:
        """Rows after the one numbered `cursor`, at most `limit`, and the cursor to go on from."""
        for _ in range(outcome_folder.LISTINGS):
            with contextlib.suppress(FileNotFoundError):
                return self._since(cursor, limit)
        raise outcome_folder.vanishing_files_error(self._folder, "files of the outcomes")

    def _since(self, cursor: int, limit: int | None) -> tuple[pl.DataFrame, int]:
        frames: list[pl.DataFrame] = []
        for part in self._parts():
            missing = None if limit is None else limit - sum(part_rows.height for part_rows in frames)
            if part.last <= cursor or missing == 0:
                continue
            frame = as_frame(self._read(part)).slice(max(0, cursor + 1 - part.first), missing)
            frames.append(frame)
            cursor = max(cursor, part.first - 1) + frame.height
        return (pl.concat(frames) if frames else self._empty()), cursor

    def frames(self, columns: list[str] | None = None, *, after: int = 0) -> Iterator[pl.DataFrame]:
        """The rows after the one numbered `after`, a file at a time."""
        for part in self._parts():
            if part.last > after:
                rows = as_frame(read_table(part.path, columns) if columns else self._read(part))
                yield rows.slice(max(0, after + 1 - part.first))

    def _unknown(self, frame: pl.DataFrame) -> pl.DataFrame:
        for part in self._parts():
            if not frame.height:
                break
            if may_hold(part.path, _COUNTED, frame[_COUNTED]):
                known = as_frame(read_table(part.path, self._identity))
                frame = frame.join(known, on=self._identity, how="anti", nulls_equal=True, maintain_order="left")
        return frame

    def _read(self, part: _Part) -> pa.Table:
        """The rows of a file; a column that an earlier version did not write holds nulls."""
        table = read_table(part.path)
        for field in self._schema:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(self._schema.names)

    def _empty(self) -> pl.DataFrame:
        return as_frame(pa.Table.from_batches([], self._schema))

    def _parts(self) -> list[_Part]:
        names = [(path, match) for path in self._folder.glob("*.parquet") if (match := _FILE.fullmatch(path.name))]
        listed = [_Part(int(match[1]), -int(match[2]), path) for path, match in names]
        parts: list[_Part] = []
        # Wider ones come first at the same beginning: what they cover holds nothing new.
        for part in sorted(listed):
            if not parts or -part.last > parts[-1].last:
                parts.append(part._replace(last=-part.last))
        return parts

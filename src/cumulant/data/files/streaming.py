"""A file of any size in pieces of rows, in order; a reader can begin at any piece. Memory is bounded by a piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import DataError, missing_part
from cumulant.data.column_paths import paths_of
from cumulant.data.files.blocks import read_blocks
from cumulant.data.files.hive_columns import Partition, with_folders, with_partition
from cumulant.data.files.listing import file_kind
from cumulant.data.files.reading import reading_errors, refuse_malformed, text_table, with_nested_columns
from cumulant.data.formats.arrow_errors import arrow_errors
from cumulant.data.formats.excel import read_excel
from cumulant.data.formats.orc_file import OrcFile, frame_of
from cumulant.data.formats.parquet_footer import refuse_encrypted, utf8_errors
from cumulant.data.formats.parquet_memory import MOST_BYTES, fitting_rows
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import DialectError, FileTable

_BUFFER = 1 << 20


class Piece(NamedTuple):
    """Consecutive rows of a file, after `first` rows; `share` of the file is read with them."""

    rows: pl.DataFrame
    first: int
    share: float


class FileStream:
    """One file in pieces of `rows` rows (fewer where rows are wide; of text, about as many), which are always the same.

    `partition`: columns that the names of the file's folders hold. Types of CSV and JSON lines are inferred for each
    piece.

    Raises:
        DataError: the file is empty, damaged or in no known format.
    """

    def __init__(self, path: Path, url: str, spec: SourceSpec, *, rows: int, partition: Partition = ()) -> None:
        self._path, self._url, self._spec, self._rows = path, url, spec, rows
        kind = file_kind(url, spec)
        if kind is None:
            hint = "save it as CSV or Parquet, or set `format` in the source's declaration"
            raise DataError(f"{url}: its name does not show its format", subject=url, hint=hint)
        with reading_errors(url):
            if path.stat().st_size == 0:
                raise DataError(f"{url} is empty (0 bytes)", subject=url, hint="write it again, or remove it")
        self._engine = _engine(kind, path, url, spec)
        self._csv = kind == "csv"
        self._partition = partition
        head = self._engine.empty() if self._engine else self._first_rows()
        self._own = frozenset(head.columns)
        self.head = self._placed(head)

    def pieces(self, columns: Sequence[str] | None = None, *, done: Sequence[int] = ()) -> Iterator[Piece]:
        """The pieces after those that are `done` (their numbers of rows), with `columns` alone where it can.

        Raises:
            DataError: the file is damaged; names the row group of a Parquet file.
        """
        if self._engine is None:
            pieces = self._texts(done)
        else:
            own = None if columns is None else self._own_columns(columns)
            pieces = self._engine.pieces(self._rows, own, skip=sum(done))
        return (piece._replace(rows=self._placed(piece.rows)) for piece in pieces)

    def _own_columns(self, columns: Sequence[str]) -> list[str]:
        """The columns of the file from which these are taken."""
        paths = paths_of(self._spec.columns)
        taken = [paths[name][0] if name in paths else name for name in columns]
        return [name for name in dict.fromkeys([*taken, *columns]) if name in self._own]

    def _placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with the columns of declared paths and of the file's folders."""
        table = FileTable(rows)
        if self._engine is not None:  # those of a text have them
            table = with_nested_columns(table, self._spec, self._url)
            refuse_malformed(table, self._url)
        table = with_partition(table, self._partition, self._spec, texts=(), url=self._url)
        return with_folders(table, self._spec, url=self._url).rows

    def _first_rows(self) -> pl.DataFrame:
        """The rows of the first block, after which the separator and encoding are known."""
        content = next(self._blocks(), b"")
        while True:
            try:
                return text_table(content, self._url, self._spec)
            except DialectError as error:
                fitting = msgspec.structs.replace(self._spec, **error.declare)
                if fitting == self._spec:
                    raise
                self._spec = fitting

    def _blocks(self) -> Iterator[bytes]:
        return (block.content for block in read_blocks(self._path, rows=self._rows, most=MOST_BYTES, csv=self._csv))

    def _texts(self, done: Sequence[int]) -> Iterator[Piece]:
        first, plain = sum(done), True
        with reading_errors(self._url):
            blocks = read_blocks(self._path, rows=self._rows, most=MOST_BYTES, csv=self._csv)
            for number, (content, share, _) in enumerate(blocks):
                if number >= len(done):
                    rows = self._table(content, first, plain)
                    yield Piece(rows, first, share)
                    first += rows.height
                plain = plain and content.isascii()

    def _table(self, content: bytes, first: int, plain: bool) -> pl.DataFrame:
        try:
            return text_table(content, self._url, self._spec)
        except DialectError as error:
            # All that was read so far reads the same in the other encoding, if it was ASCII.
            if plain and "encoding" in error.declare:
                self._spec = msgspec.structs.replace(self._spec, **error.declare)
                return text_table(content, self._url, self._spec)
            raise
        except DataError as error:
            if not first:
                raise
            message = f"{error.message} (counted from row {first + 1:,} on)"
            raise type(error)(message, subject=error.subject, hint=error.hint) from error


class ParquetFile:
    """Row groups of a Parquet file, read a few pages at a time."""

    def __init__(self, path: Path, url: str) -> None:
        try:
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            raise missing_part(error.name or "pyarrow", "serve") from None
        self._path, self._url = path, url
        with utf8_errors(url), arrow_errors(f"{url} is not a whole Parquet file: damaged or cut off", url):
            refuse_encrypted(path, url)
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True)
            names = self._file.schema_arrow.names
            self.rows: int = self._file.metadata.num_rows
        if not names:
            raise DataError(f"{url} has no columns", subject=url, hint="write it again, or remove it")

    def empty(self) -> pl.DataFrame:
        return frame_of(self._file.schema_arrow.empty_table())

    def pieces(self, rows: int, columns: Sequence[str] | None, *, skip: int) -> Iterator[Piece]:
        import pyarrow as pa

        rows, total = (
            min(rows, fitting_rows(self._path, self._url, self._file, columns)),
            max(1, self._file.metadata.num_rows),
        )
        batches: list[Any] = []
        count, first = 0, skip
        for batch in self._batches(rows, columns, skip):
            batches.append(batch)
            count += batch.num_rows
            while count >= rows:
                whole = pa.Table.from_batches(batches)
                yield Piece(frame_of(whole.slice(0, rows)), first, (first + rows) / total)
                batches = whole.slice(rows).to_batches()
                count, first = count - rows, first + rows
        if count:
            yield Piece(frame_of(pa.Table.from_batches(batches)), first, 1.0)

    def _batches(self, rows: int, columns: Sequence[str] | None, skip: int) -> Iterator[Any]:
        meta, before = self._file.metadata, 0
        for number in range(meta.num_row_groups):
            size = meta.row_group(number).num_rows
            if before + size > skip:
                for batch in self._group(number, before, size, rows, columns):
                    offset = max(0, skip - before)
                    before += batch.num_rows
                    if offset < batch.num_rows:
                        yield batch.slice(offset)
            else:
                before += size

    def _group(self, number: int, before: int, size: int, rows: int, columns: Sequence[str] | None) -> Iterator[Any]:
        message = f"{self._url}: row group {number} (rows {before + 1:,} to {before + size:,}) is damaged"
        with arrow_errors(message, self._url):
            batches = self._file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False)
            seen = 0
            for batch in batches:
                seen += batch.num_rows
                yield batch
        if seen != size:
            raise DataError(message, subject=self._url, hint="copy or write the file again")


def _engine(kind: str, path: Path, url: str, spec: SourceSpec) -> ParquetFile | _Orc | _Sheet | None:
    """What reads a file in a format of columns; None for text."""
    if kind == "parquet":
        return ParquetFile(path, url)
    if kind == "excel":
        return _Sheet(path, url, spec)
    return _Orc(path, url) if kind == "orc" else None


class _Orc:
    """Stripes of an ORC file, read some rows at a time."""

    def __init__(self, path: Path, url: str) -> None:
        self._file = OrcFile(path, url)

    def empty(self) -> pl.DataFrame:
        return frame_of(self._file.schema.empty_table())

    def pieces(self, rows: int, columns: Sequence[str] | None, *, skip: int) -> Iterator[Piece]:
        first, total = 0, max(1, self._file.rows)
        for table in self._file.pieces(columns, rows=rows, most=MOST_BYTES):
            after = first + table.num_rows
            if first >= skip:
                yield Piece(frame_of(table), first, after / total)
            first = after


class _Sheet:
    """A sheet of a workbook, which is read whole: it has a million rows at most."""

    def __init__(self, path: Path, url: str, spec: SourceSpec) -> None:
        table = read_excel(path, url, spec)
        refuse_malformed(table, url)
        self._table = table.rows

    def empty(self) -> pl.DataFrame:
        return self._table.clear()

    def pieces(self, rows: int, columns: Sequence[str] | None, *, skip: int) -> Iterator[Piece]:
        table = self._table if columns is None else self._table.select(columns)
        for first in range(skip, table.height, rows):
            piece = table.slice(first, rows)
            yield Piece(piece, first, (first + piece.height) / table.height)

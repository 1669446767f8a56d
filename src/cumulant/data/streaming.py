"""A file of any size in pieces of rows, in order; a reader can begin at any piece. Memory is bounded by a piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from cumulant.core.errors import DataError, missing_part
from cumulant.data.blocks import blocks
from cumulant.data.csv_text import DialectError, Table
from cumulant.data.listing import file_kind
from cumulant.data.parquet_footer import refuse_encrypted, utf8
from cumulant.data.parquet_memory import MOST_BYTES, fitting_rows
from cumulant.data.partitions import Partition, with_folders, with_partition
from cumulant.data.sources import readable, text_table, whole_parquet
from cumulant.data.spec import SourceSpec

_BUFFER = 1 << 20


class Piece(NamedTuple):
    """Consecutive rows of a file. `first` rows stand before them; `share` of the file is read with them."""

    rows: pl.DataFrame
    first: int
    share: float


class Stream:
    """One file. Of Parquet, pieces are of `rows` rows (fewer where rows are wide); of text, of about as many.

    `partition` are columns that the names of the file's folders hold, which each piece then has.

    Where the pieces end depends on the file and `rows` alone. CSV and JSON lines are read as `read` reads them, types
    being found out for each piece.

    Raises:
        DataError: the file is empty, damaged or in no known format.
    """

    def __init__(self, path: Path, url: str, spec: SourceSpec, *, rows: int, partition: Partition = ()) -> None:
        self._path, self._url, self._spec, self._rows = path, url, spec, rows
        kind = file_kind(url, spec)
        if kind is None:
            hint = "save it as CSV or Parquet, or set `format` in the source's declaration"
            raise DataError(f"{url}: cannot tell its format from its name", subject=url, hint=hint)
        with readable(url):
            if path.stat().st_size == 0:
                raise DataError(f"{url} is empty (0 bytes)", subject=url, hint="write it again, or remove it")
        self._parquet = _Parquet(path, url) if kind == "parquet" else None
        self._csv = kind == "csv"
        self._partition = partition
        head = self._parquet.empty() if self._parquet else self._first_rows()
        self._own = frozenset(head.columns)
        self.head = self._placed(head)

    def pieces(self, columns: Sequence[str] | None = None, *, done: Sequence[int] = ()) -> Iterator[Piece]:
        """The pieces after those that are `done` (given as their numbers of rows), with `columns` alone where it can.

        Raises:
            DataError: the file is damaged; names the row group of a Parquet file.
        """
        if self._parquet is None:
            pieces = self._texts(done)
        else:
            own = None if columns is None else [name for name in columns if name in self._own]
            pieces = self._parquet.pieces(self._rows, own, skip=sum(done))
        return (piece._replace(rows=self._placed(piece.rows)) for piece in pieces)

    def _placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with the columns of the file's folders."""
        table = with_partition(Table(rows), self._partition, self._spec, texts=(), url=self._url)
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
        return (content for content, _ in blocks(self._path, rows=self._rows, most=MOST_BYTES, csv=self._csv))

    def _texts(self, done: Sequence[int]) -> Iterator[Piece]:
        first, plain = sum(done), True
        with readable(self._url):
            found = blocks(self._path, rows=self._rows, most=MOST_BYTES, csv=self._csv)
            for number, (content, share) in enumerate(found):
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
            said = f"{error.message} (counted from row {first + 1:,} on)"
            raise type(error)(said, subject=error.subject, hint=error.hint) from error


class _Parquet:
    """Row groups of a Parquet file, read a few pages at a time."""

    def __init__(self, path: Path, url: str) -> None:
        try:
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            raise missing_part(error.name or "pyarrow", "serve") from None
        self._path, self._url = path, url
        with utf8(url), whole_parquet(f"{url} is not a whole Parquet file: damaged or cut off", url):
            refuse_encrypted(path, url)
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True)
            names = self._file.schema_arrow.names
        if not names:
            raise DataError(f"{url} has no columns", subject=url, hint="write it again, or remove it")

    def empty(self) -> pl.DataFrame:
        return _frame(self._file.schema_arrow.empty_table())

    def pieces(self, rows: int, columns: Sequence[str] | None, *, skip: int) -> Iterator[Piece]:
        import pyarrow as pa

        rows, total = (
            min(rows, fitting_rows(self._path, self._url, self._file, columns)),
            max(1, self._file.metadata.num_rows),
        )
        held: list[Any] = []
        count, first = 0, skip
        for batch in self._batches(rows, columns, skip):
            held.append(batch)
            count += batch.num_rows
            while count >= rows:
                whole = pa.Table.from_batches(held)
                yield Piece(_frame(whole.slice(0, rows)), first, (first + rows) / total)
                held = whole.slice(rows).to_batches()
                count, first = count - rows, first + rows
        if count:
            yield Piece(_frame(pa.Table.from_batches(held)), first, 1.0)

    def _batches(self, rows: int, columns: Sequence[str] | None, skip: int) -> Iterator[Any]:
        meta, before = self._file.metadata, 0
        for number in range(meta.num_row_groups):
            size = meta.row_group(number).num_rows
            if before + size > skip:
                for batch in self._group(number, before, size, rows, columns):
                    left = max(0, skip - before)
                    before += batch.num_rows
                    if left < batch.num_rows:
                        yield batch.slice(left)
            else:
                before += size

    def _group(self, number: int, before: int, size: int, rows: int, columns: Sequence[str] | None) -> Iterator[Any]:
        said = f"{self._url}: row group {number} (rows {before + 1:,} to {before + size:,}) is damaged"
        with whole_parquet(said, self._url):
            found = self._file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False)
            seen = 0
            for batch in found:
                seen += batch.num_rows
                yield batch
        if seen != size:
            raise DataError(said, subject=self._url, hint="copy or write the file again")


def _frame(table: Any) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found

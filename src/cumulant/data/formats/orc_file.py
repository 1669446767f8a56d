"""ORC files, read some rows of a stripe at a time, in memory bounded by a count of each column of texts or lists.

Not bounded is one batch of a list column, whose lengths may be one run of equal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from cumulant.core.errors import DataError, missing_part
from cumulant.core.system.memory import memory_limit
from cumulant.data.formats.arrow_errors import arrow_errors
from cumulant.data.formats.parquet_footer import utf8_errors
from cumulant.data.formats.parquet_memory import refuse_above

#: rows that are decoded at a time
_ROWS = 1024


class OrcFile:
    """One file, open. Raises DataError where it is not a whole ORC file."""

    def __init__(self, path: Path, url: str) -> None:
        try:
            import pyarrow.dataset as ds
            from pyarrow import orc
        except ModuleNotFoundError as error:
            raise missing_part(error.name or "pyarrow", "serve") from None
        self.url, self._said = url, f"{url} is not a whole ORC file: damaged or cut off"
        with utf8_errors(url), arrow_errors(self._said, url):
            file = orc.ORCFile(path)
            self.schema, self.rows = file.schema, file.nrows
            self._data = ds.dataset(str(path), format="orc", schema=self.schema)
            names = self.schema.names
        if not names:
            raise DataError(f"{url} has no columns", subject=url, hint="write it again, or remove it")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise DataError(
                f"{url} has two columns named {', '.join(repeated)}", subject=url, hint="give each column its own name"
            )

    def batches(self, columns: Sequence[str] | None = None, *, rows: int = _ROWS) -> Iterator[Any]:
        """Batches of at most `rows` rows, in the order of the file.

        Raises:
            DataError: a stripe is damaged, or rows are missing.
        """
        with arrow_errors(self._said, self.url):
            scanner = self._data.scanner(
                columns=None if columns is None else list(columns),
                batch_size=min(rows, _ROWS),
                batch_readahead=0,
                fragment_readahead=0,
                use_threads=False,
            )
            count = 0
            for batch in scanner.to_batches():
                batch.validate(full=True)  # Polars takes texts for UTF-8
                count += batch.num_rows
                yield batch
        if count != self.rows:
            raise DataError(self._said, subject=self.url, hint="copy or write it again")

    def pieces(self, columns: Sequence[str] | None = None, *, rows: int, most: int) -> Iterator[Any]:
        """Tables of consecutive rows, each of which ends with the batch in which it has `rows` rows or `most` bytes.

        Raises:
            DataError: as `batches`.
        """
        import pyarrow as pa

        batches: list[Any] = []
        count = size = 0
        for batch in self.batches(columns, rows=rows):
            batches.append(batch)
            count, size = count + batch.num_rows, size + batch.nbytes
            if count >= rows or size >= most:
                yield pa.Table.from_batches(batches)
                batches, count, size = [], 0, 0
        if count:
            yield pa.Table.from_batches(batches)

    def refuse_large(self, limit: int | None) -> None:
        """Refuse a file that takes more than `limit` (None: half of the machine's memory) when it is read whole.

        Raises:
            DataError: it takes more, or is damaged.
        """
        most = memory_limit(limit)
        needed = self.rows * sum(_width(field.type) for field in self.schema)
        refuse_above(needed, most, self.url)
        for field in self.schema:
            if not _width(field.type):
                for batch in self.batches([field.name]):
                    needed += batch.nbytes
                    refuse_above(needed, most, self.url)


def read_orc(path: Path, url: str, limit: int | None) -> pl.DataFrame:
    """The rows of an ORC file, which may take at most `limit` bytes of memory.

    Raises:
        DataError: it is damaged or cut off, takes more, or holds times beyond 64 bits of nanoseconds.
    """
    import pyarrow as pa

    file = OrcFile(path, url)
    file.refuse_large(limit)
    return frame_of(pa.Table.from_batches(file.batches(), schema=file.schema))


def frame_of(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _width(kind: Any) -> int:
    """Bytes of a value; 0 where they differ by value."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 0

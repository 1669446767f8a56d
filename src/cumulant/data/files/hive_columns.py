"""Columns that the names of folders hold, as Hive writes them: `dt=2024-01-01/part.parquet`."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date, datetime
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from cumulant.core.errors import DataError
from cumulant.data.files.listing import pattern_of
from cumulant.data.spec import SourceSpec
from cumulant.data.text.csv_text import FileTable
from cumulant.data.text.identifier_text import PADDED

Partition = tuple[tuple[str, str | None], ...]
_NULL = ("__HIVE_DEFAULT_PARTITION__", "")
_WILD = re.compile(r"[*?\[]")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"-?[0-9]*\.[0-9]+|-?[0-9]+\.[0-9]*")


def partition_of(url: str, spec: SourceSpec, *, root: Path) -> Partition:
    """Column and value of each folder `name=value` between the source's path, or its first wildcard, and the file."""
    pattern = pattern_of(spec, source=url, root=root).removeprefix("file://").rstrip("/")
    wild = _WILD.search(pattern)
    base = pattern if wild is None else pattern[: wild.start()].rpartition("/")[0]
    place = url.removeprefix("file://")
    if not place.startswith(f"{base}/"):
        return ()
    return _pairs(place.removeprefix(f"{base}/"))


def _pairs(place: str) -> Partition:
    pairs = (folder.partition("=") for folder in place.split("/")[:-1])
    values = {unquote(name): unquote(value) for name, sign, value in pairs if name and sign}
    return tuple((name, None if value in _NULL else value) for name, value in values.items())


def with_folders(table: FileTable, spec: SourceSpec, *, url: str) -> FileTable:
    """`table` with the columns that all folders of the file name and it lacks, those in the path itself included."""
    lacking = tuple(pair for pair in _pairs(url.removeprefix("file://")) if pair[0] not in table.rows.columns)
    return with_partition(table, lacking, spec, texts=(), url=url)


def with_partition(
    table: FileTable, partition: Partition, spec: SourceSpec, *, texts: Collection[str], url: str
) -> FileTable:
    """`table` with the partition's columns. Types are as in CSV: text where declared, in `texts`, or no number.

    Raises:
        DataError: a column of the file has the same name and another value.
    """
    if not partition:
        return table
    as_text = _columns_with_declared_format(spec) | {*texts}
    columns = {name: _column(value, as_text=name in as_text) for name, value in partition}
    for name, value in partition:
        if name in table.rows.columns:
            _refuse_conflict(table.rows[name], value, url)
            del columns[name]
    rows = table.rows.with_columns(value.alias(name) for name, value in columns.items())
    return table._replace(rows=rows, partitions=frozenset(columns))


def _columns_with_declared_format(spec: SourceSpec) -> set[str]:
    times = {*spec.known_times, *([spec.time.column] if spec.time else [])}
    return times | {name for name, rule in spec.rules.items() if rule.type or rule.number_format or rule.date_format}


def _column(value: str | None, *, as_text: bool) -> pl.Expr:
    if value is None or as_text or re.match(PADDED, value):
        return pl.lit(value, pl.String)
    if _WHOLE.fullmatch(value):
        return pl.lit(int(value), pl.Int64)
    if _NUMBER.fullmatch(value):
        return pl.lit(float(value), pl.Float64)
    if value in ("true", "false"):
        return pl.lit(value == "true", pl.Boolean)
    return pl.lit(value, pl.String)


def _refuse_conflict(column: pl.Series, value: str | None, url: str) -> None:
    """Writers may repeat the folder's value in the file; another value contradicts it."""
    if not _agrees(column, value):
        raise DataError(
            f'{url}: column "{column.name}" has other values than the name of its folder, {column.name}={value}',
            subject=column.name,
            hint="write the file without the column, rename the folder, or name the folder itself in `path`",
        )


def _agrees(column: pl.Series, value: str | None) -> bool:
    """Whether each value is the folder's, however it is written, or a time on the folder's day."""
    if isinstance(column.dtype, pl.Datetime) and value is not None:
        local = column.dt.replace_time_zone(None)
        return bool((local.dt.date() if _DAY.fullmatch(value) else local).eq_missing(_moment(value)).all())
    if isinstance(column.dtype, pl.Boolean) and value is not None:
        return bool(column.cast(pl.String).eq_missing(value.lower()).all())
    expected = pl.Series([value], dtype=pl.String)
    try:
        as_text = column.cast(pl.String, strict=False).eq_missing(value).all()
        return bool(as_text or column.eq_missing(expected.cast(column.dtype, strict=False)[0]).all())
    except pl.exceptions.PolarsError:  # no such cast
        return False


def _moment(value: str) -> date | None:
    """A day or a time in ISO 8601, as its clock shows it; None where it is neither."""
    try:
        if _DAY.fullmatch(value):
            return date.fromisoformat(value)
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        return None

"""Input frames of the offline engine: the plan's columns of each source in their inside types, keys as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl

from cumulant.core.errors import DataError, did_you_mean
from cumulant.core.plan import Field, Source
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.definition.dtypes import Kind
from cumulant.features.definition.known_time import EntryRule, entry_rule
from cumulant.features.offline.kernel.sums import Floats
from cumulant.features.offline.kernel.timeline import Ints
from cumulant.features.offline.polars_compiler import TYPES, canonical, kind_of

#: the position of a row in its snapshot
_DENSE = 1 << 20


def kinds(fields: Sequence[Field]) -> dict[str, Kind]:
    return {field.name: field.dtype for field in fields}


def read_fields(
    source: str, fields: Sequence[Field], frame: pl.LazyFrame | pl.DataFrame, optional: bool = False
) -> pl.DataFrame:
    return scan_fields(source, fields, frame, optional).collect()


def scan_fields(
    source: str,
    fields: Sequence[Field],
    frame: pl.LazyFrame | pl.DataFrame,
    optional: bool = False,
    more: Sequence[pl.Expr] = (),
) -> pl.LazyFrame:
    """The fields of a source, in the order of its rows, and `__row`; of rows with versions `__from` and `__until` too.

    Where `optional`, a column that is absent is all null. `more`: other columns to have beside them.

    Raises:
        DataError: a column is absent, or not of the type that the plan was made with.
    """
    lazy = frame.lazy()
    schema = lazy.collect_schema()
    selected = []
    for field in fields:
        if field.name in schema:
            selected.append(_field(source, field, schema[field.name]))
        elif optional:
            selected.append(pl.lit(None, dtype=TYPES[field.dtype]).alias(field.name))
        else:
            hint = did_you_mean(field.name, schema.names())
            raise DataError(f'{source} has no column "{field.name}"', subject=source, hint=hint)
    if ROW not in schema:
        lazy = lazy.with_row_index(ROW)
    dates = [pl.col(name).cast(pl.Int64) for name in (FROM, UNTIL) if name in schema]
    return lazy.select(*selected, pl.col(ROW).cast(pl.Int64), *dates, *more)


def blocks_of(rows: pl.LazyFrame, count: int | None) -> Iterator[pl.DataFrame]:
    """The rows in order, at most so many at a time (None: all at once); at least one block."""
    if count is None:
        yield rows.collect()
        return
    yield rows.collect_schema().to_frame()
    for frame in rows.collect_batches(chunk_size=count, maintain_order=True):
        yield from frame.iter_slices(count)


def _field(source: str, field: Field, dtype: pl.DataType) -> pl.Expr:
    kind: Kind = kind_of(dtype)
    if dtype != pl.Null and kind != field.dtype and (kind, field.dtype) not in {("int", "float"), ("date", "time")}:
        raise DataError(
            f'"{field.name}" of {source} is {dtype} and was {field.dtype} when the plan was made',
            subject=source,
            hint="make the plan again from the present snapshot",
        )
    return canonical(pl.col(field.name), dtype, field.dtype, field.zone).alias(field.name)


def entry_time(source: Source, entry: EntryRule) -> pl.Expr:
    """When a row enters, in microseconds; null where it never does."""
    assert source.event_time is not None
    event = pl.col(source.event_time).cast(pl.Int64) + entry.delay_us
    known = [pl.col(column).cast(pl.Int64) + delay for column, delay in entry.columns]
    if not known:
        return event
    complete = pl.all_horizontal(event.is_not_null(), *(at.is_not_null() for at in known))
    return pl.when(complete).then(pl.max_horizontal(event, *known))


def entry_times(frame: pl.DataFrame, source: Source, entry: EntryRule) -> pl.Series:
    """When each row enters, in microseconds; null where it never does."""
    return frame.select(entry_time(source, entry).alias("at"))["at"]


def known_times(frame: pl.DataFrame, source: Source, columns: Iterable[str]) -> pl.Series | None:
    """When all of `columns` of each row are known, as UTC times; null where never. None for a source without time."""
    if source.event_time is None:
        return None
    return entry_times(frame, source, entry_rule(source, columns)).cast(pl.Datetime("us", "UTC"))


def numbers(series: pl.Series) -> Ints:
    """Whole numbers of a series of ints, bools, times or dates; 0 for null."""
    whole = series.to_physical().cast(pl.Int64)
    return (whole.fill_null(0) if whole.null_count() else whole).to_numpy()


def floats(series: pl.Series) -> Floats:
    """A series of numbers or bools as float64; 0 for null."""
    whole = series.cast(pl.Float64)
    return (whole.fill_null(0.0) if whole.null_count() else whole).to_numpy()


def valid(series: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    """Which values are not null; None for all."""
    return series.is_not_null().to_numpy() if series.null_count() else None


def codes(series: pl.Series) -> tuple[Ints, int]:
    """Equal values as equal numbers from 0, null as -1, and how many numbers there may be."""
    if series.dtype == pl.Float64:
        series = series + 0.0  # makes -0.0 equal to 0.0
    if series.dtype.is_integer() or series.dtype in {pl.Boolean, pl.Date} or series.dtype == pl.Datetime:
        plain = series.to_physical().cast(pl.Int64)
        low, high = plain.min() or 0, plain.max() or 0
        assert isinstance(low, int)
        assert isinstance(high, int)
        if high - low < max(_DENSE, 4 * len(plain)):
            return _with_nulls(numbers(plain) - low, plain), high - low + 1
        series = plain
    ranks = series.rank("dense").cast(pl.Int64)
    return _with_nulls(numbers(ranks) - 1, ranks), len(ranks) + 1


def _with_nulls(numbered: Ints, series: pl.Series) -> Ints:
    known = valid(series)
    return numbered if known is None else np.where(known, numbered, -1)


def key_codes(frames: Sequence[pl.DataFrame], by: Sequence[str]) -> list[Ints]:
    """The keys of several frames as common numbers from 0; -1 where one of the columns is null."""
    joined, size = np.zeros(0, dtype=np.int64), 1
    for i, column in enumerate(by):
        whole = pl.concat([frame[column] for frame in frames]) if len(frames) > 1 else frames[0][column]
        column_codes, count = codes(whole)
        if i == 0:
            joined, size = column_codes, count
            continue
        if size * count >= 1 << 40:
            joined = np.unique(joined, return_inverse=True)[1] - int((joined < 0).any())
            size = int(joined.max(initial=0)) + 1
        joined = np.where((joined < 0) | (column_codes < 0), -1, joined * count + column_codes)
        size *= count
    return np.split(joined, np.cumsum([frame.height for frame in frames[:-1]])) if len(frames) > 1 else [joined]


def inside_as(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column of inside values as `dtype`."""
    return pl.col(name).cast(pl.Int32).cast(dtype) if dtype == pl.Date else pl.col(name).cast(dtype)


def inside(frame: pl.DataFrame) -> list[tuple[bool | int | float | str | None, ...]]:
    """Rows with times and dates as their numbers."""
    return frame.select(
        pl.col(name).to_physical().cast(pl.Int64)
        if dtype == pl.Date or isinstance(dtype, pl.Datetime)
        else pl.col(name)
        for name, dtype in frame.schema.items()
    ).rows()

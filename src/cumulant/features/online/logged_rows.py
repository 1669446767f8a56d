"""Rows that were posted to a source, as a frame: as they stand in the log, or as they had arrived at a moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import polars as pl

from cumulant.core.errors import RequestError
from cumulant.core.plan import Source
from cumulant.features.online.requests import RequestReader, python_converter
from cumulant.features.posted.posted_events import LoggedRow, SourceLog, log_table
from cumulant.ports.online import Cells, OnlineStore

#: when a row arrived, in microseconds; null where that was not recorded
ARRIVED = "__arrived"
_STEP = 10_000
_DTYPES: Mapping[str, pl.DataType] = {
    "bool": pl.Boolean(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "str": pl.String(),
    "time": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
    "bytes": pl.Binary(),
}


def field_frame(fields: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows in their inside form as a frame of these fields."""
    columns = {}
    for field in fields:
        convert = python_converter(field.dtype)
        values = [row.get(field.name) for row in rows]
        if convert is not None:
            values = [None if value is None else convert(value) for value in values]
        columns[field.name] = pl.Series(field.name, values, _DTYPES[field.dtype], strict=False)
    return pl.DataFrame(columns)


def posted_rows(store: OnlineStore, scope: str, source: Source) -> pl.DataFrame:
    """The rows in the log of a source whose posts do not correct earlier ones, with `ARRIVED`."""
    logged = {key: record for step in logged_rows(store, log_table(scope, source.name)) for key, record in step}
    records = [*logged.values()]
    readers = {field.name: RequestReader([field]) for field in source.fields}
    rows = [_inside(record, readers) for record in records]
    frame = field_frame(source.fields, rows)
    return frame.with_columns(pl.Series(ARRIVED, [record.arrived for record in records], pl.Int64))


def with_posted(rows: pl.LazyFrame, posted: pl.DataFrame, source: Source) -> pl.LazyFrame:
    """Rows of a snapshot completed by posted ones (with `ARRIVED`, several of a key where it came more than once): a
    column keeps its first value, and rows of other keys are added.
    """
    if not posted.height or not source.key:
        return rows
    if posted.select(source.key).is_duplicated().any():
        ordered = posted.sort(ARRIVED, nulls_last=False, maintain_order=True)
        posted = ordered.group_by(source.key, maintain_order=True).agg(pl.all().drop_nulls().first())
    names = [field.name for field in source.fields]
    values = [name for name in names if name not in source.key]
    joined = rows.select(names).join(
        posted.lazy().select(names), on=list(source.key), how="full", coalesce=True, suffix="__posted"
    )
    return joined.select(*source.key, *(pl.coalesce(name, f"{name}__posted").alias(name) for name in values))


def _inside(record: LoggedRow, readers: Mapping[str, RequestReader]) -> dict[str, Any]:
    values = dict(record.values)
    for name in record.other.keys() & readers.keys():
        with suppress(RequestError):
            values |= readers[name].read(record.other)
    return values


def logged_rows(store: OnlineStore, table: str) -> Iterator[list[tuple[bytes, LoggedRow]]]:
    """All rows of a log, each with its key there, in steps; a row that changes meanwhile comes again as it is then."""

    def step(cells: Cells, mark: int | None) -> tuple[list[tuple[bytes, LoggedRow]], int, bool]:
        log = SourceLog(cells, table)
        rows, end = log.since(log.first if mark is None else mark, _STEP)
        return rows, end, end < log.next

    mark, more = None, True
    while more:
        rows, mark, more = store.update(partial(step, mark=mark))
        yield rows


def log_begun(store: OnlineStore, table: str) -> int | None:
    """Since when no row of a log was lost, in microseconds; None: that is not known."""
    return store.update(lambda cells: SourceLog(cells, table).begun)

"""Counting a table into a profile, one column after the other, so that memory holds a column and not the table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import polars as pl

from cumulant.core.errors import DataError, did_you_mean
from cumulant.monitoring.drift import categories, numbers
from cumulant.monitoring.drift.blocks import RowBlocks, whole
from cumulant.monitoring.drift.profiles import ColumnCells, ColumnCounts, DriftProfile, Role, Skipped

#: rows of a column that are in memory at a time
CHUNK = 1_000_000
#: names of answers that are probabilities, where all of the reference are within 0 and 1
_PROBABLY = re.compile(r"prob|score", re.IGNORECASE)
#: how far rounding, as of sums of 32-bit numbers, takes a probability beyond 0 or 1
_ROUNDING = 1e-6

Kind = Literal["number", "category"]


def profile(
    table: pl.DataFrame | pl.LazyFrame,
    columns: Mapping[str, Role],
    *,
    cut: RowBlocks | None = None,
    like: DriftProfile | None = None,
    workers: int | None = None,
) -> DriftProfile:
    """Count the rows of `table` in the blocks of `cut` (default: one for all), by columns and their roles.

    With `like`, a reference, its cells are used, and `columns` only names which others are new. Of a lazy frame over
    Parquet one column at a time is read by each of `workers` (default: two).

    Raises:
        DataError: a column is not there, or there is no row.
    """
    lazy = table.lazy()
    schema = lazy.collect_schema()
    cut = cut or whole(int(lazy.select(pl.len()).collect().item()))
    if not sum(block.rows for block in cut.blocks):
        raise DataError("there are no rows", hint="check the file, and the times of its rows")
    read = _Reader(lazy, cut)
    with ThreadPoolExecutor(workers or min(2, os.cpu_count() or 1)) as pool:
        if like is not None:
            counted = tuple(pool.map(lambda column: _again(read, schema, column), like.columns))
            known = {column.name for column in like.columns} | {column.name for column in like.skipped}
            extra = tuple(name for name in columns if name not in known and name in schema)
            return DriftProfile(
                blocks=cut.blocks, columns=counted, skipped=like.skipped, extra=extra, left_out=cut.left_out
            )
        _check(columns, schema)
        results = list(pool.map(lambda item: _first(read, schema, *item), columns.items()))
    return DriftProfile(
        blocks=cut.blocks,
        columns=tuple(column for column in results if isinstance(column, ColumnCounts)),
        skipped=tuple(column for column in results if isinstance(column, Skipped)),
        left_out=cut.left_out,
    )


class _Reader:
    """One column at a time, in chunks, each with the blocks of its rows."""

    def __init__(self, lazy: pl.LazyFrame, cut: RowBlocks) -> None:
        self._lazy, self._cut = lazy, cut
        self.blocks = len(cut.blocks)
        self.rows = cut.rows

    def __call__(self, name: str, role: Role = "feature") -> Iterator[tuple[pl.Series, numbers.Blocks]]:
        for start in range(0, self.rows, CHUNK):
            part = self._lazy.select(name)
            series = (part if self.rows <= CHUNK else part.slice(start, CHUNK)).collect().to_series()
            series = _within(_given(series)) if _is_probability(name, role) else _given(series)
            places = self._cut.places
            if places is None:
                yield series, None
                continue
            own = places[start : start + CHUNK].astype(np.int64)
            if self._cut.left_out:
                inside = own < self.blocks
                series, own = series.filter(pl.Series(inside)), own[inside]
            yield series, own

    def every(self, name: str, most: int, role: Role = "feature") -> pl.Series:
        """At most `most` of the values, evenly over the rows."""
        step = -(-self.rows // most)
        series = self._lazy.select(pl.col(name).gather_every(step)).collect().to_series()
        return _within(series) if _is_probability(name, role) else series


def _is_probability(name: str, role: Role) -> bool:
    return role == "prediction" and _PROBABLY.search(name) is not None


def _within(series: pl.Series) -> pl.Series:
    """Numbers that rounding took beyond 0 or 1 are 0 and 1."""
    if not series.dtype.is_float():
        return series
    value = pl.col(series.name)
    below, above = value.is_between(-_ROUNDING, 0.0), value.is_between(1.0, 1.0 + _ROUNDING)
    return series.to_frame().select(pl.when(below | above).then(value.round()).otherwise(value)).to_series()


def _given(series: pl.Series) -> pl.Series:
    """An empty text is missing: CSV files have no other way to leave a value out."""
    if series.dtype == pl.String and bool((series == "").any()):
        return series.replace("", None)
    return series


def _check(columns: Mapping[str, Role], schema: pl.Schema) -> None:
    for name in columns:
        if name not in schema:
            hint = did_you_mean(name, schema) or f"columns: {', '.join(list(schema)[:12])}"
            raise DataError(f"the table has no column {name}", subject=name, hint=hint)


def _kind(dtype: pl.DataType) -> Kind | str:
    """`number` or `category`, else why a column is not watched."""
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Boolean, pl.Null) or isinstance(dtype, (pl.Categorical, pl.Enum)):
        return "category"
    return "times move by themselves" if dtype.is_temporal() else f"{dtype} has no distribution that is compared"


def _first(read: _Reader, schema: pl.Schema, name: str, role: Role) -> ColumnCounts | Skipped:
    """A column of the reference."""
    kind = _kind(schema[name])
    if kind == "number":
        result = numbers.number_counts(
            lambda: read(name, role),
            lambda most: read.every(name, most, role),
            rows=read.rows,
            blocks=read.blocks,
            within=(0.0, 1.0) if _is_probability(name, role) else None,
        )
    elif kind == "category":
        result = categories.category_counts(lambda: read(name), blocks=read.blocks)
    else:
        return Skipped(name, kind)
    return Skipped(name, result) if isinstance(result, str) else _column(name, role, result)


def _again(read: _Reader, schema: pl.Schema, reference: ColumnCounts) -> ColumnCounts:
    """A column of other rows, in the cells of the reference."""
    count: Callable[[Iterator[tuple[pl.Series, numbers.Blocks]], ColumnCells, int], numbers.CellCounts]
    count = numbers.counted if reference.cells.kind == "number" else categories.counted
    if reference.name not in schema:
        empty = np.zeros((read.blocks, reference.cells.count), dtype=np.int64)
        none = np.zeros(read.blocks, dtype=np.int64)
        counts = numbers.CellCounts(reference.cells, empty, none, none)
        return _column(reference.name, reference.role, counts, absent=True)
    return _column(
        reference.name, reference.role, count(read(reference.name, reference.role), reference.cells, read.blocks)
    )


def _column(name: str, role: Role, cell_counts: numbers.CellCounts, *, absent: bool = False) -> ColumnCounts:
    return ColumnCounts(
        name=name,
        role=role,
        cells=cell_counts.cells,
        counts=tuple(map(tuple, cell_counts.counts.tolist())),
        missing=tuple(cell_counts.missing.tolist()),
        unreadable=tuple(cell_counts.unreadable.tolist()),
        examples=cell_counts.examples,
        absent=absent,
    )

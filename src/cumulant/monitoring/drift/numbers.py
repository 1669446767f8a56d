"""Numbers into cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.monitoring.drift.profiles import ColumnCells
from cumulant.statistics.drift.bins import Grid
from cumulant.statistics.drift.bins import cells as drift_cells
from cumulant.statistics.drift.bins import grid as drift_grid
from cumulant.statistics.rows import Codes, Flags, Floats

#: the block of each row; None: all are of one
Blocks = Codes | None
#: values that the cells are made from; more are thinned out evenly
_ENOUGH = 4_000_000
#: fewer rows than this may all differ by chance
_FEW = 100


class CellCounts(NamedTuple):
    """Counts [blocks, cells], and rows without a value [blocks] each."""

    cells: ColumnCells
    counts: Codes
    missing: Codes
    unreadable: Codes
    examples: tuple[str, ...] = ()


def number_counts(
    parts: Callable[[], Iterator[tuple[pl.Series, Blocks]]],
    every: Callable[[int], pl.Series],
    *,
    rows: int,
    blocks: int,
    within: tuple[float, float] | None = None,
) -> CellCounts | str:
    """Cells from these values, and their counts; or why the column is not monitored. `within`: the possible values."""
    if rows <= _ENOUGH:
        series_parts = list(parts())
        sample = pl.concat(values for values, _ in series_parts)
    else:
        series_parts, sample = [], every(_ENOUGH)
    values, _ = _values(sample)
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return "the reference holds no value of it"
    if sample.dtype.is_integer() and len(ordered) >= _FEW and bool((np.diff(ordered) > 0).all()):
        return "every row has its own value, as keys have"
    cells = ColumnCells(
        kind="number", edges=tuple(drift_grid(ordered, within=within).edges.tolist()), spread=float(ordered.std())
    )
    if series_parts and series_parts[0][1] is None and len(ordered) == len(values):
        # Sorted values are counted faster, and here they are sorted already.
        counts = drift_cells(ordered, Grid(np.array(cells.edges)))
        return CellCounts(cells, counts, np.array([len(sample) - len(values)]), np.zeros(1, dtype=np.int64))
    return counted(iter(series_parts) if series_parts else parts(), cells, blocks)


def counted(parts: Iterator[tuple[pl.Series, Blocks]], cells: ColumnCells, blocks: int) -> CellCounts:
    """Counts of values in the cells of a reference. Texts that are no number are unreadable."""
    grid = Grid(np.array(cells.edges))
    counts = np.zeros((blocks, cells.count), dtype=np.int64)
    missing, unreadable = np.zeros(blocks, dtype=np.int64), np.zeros(blocks, dtype=np.int64)
    for series, block in parts:
        values, is_number = _values(series) if _may_be_numbers(series.dtype, cells) else _none(series)
        own = block if is_number is None or block is None else block[is_number]
        counts += drift_cells(values, grid, block=own, blocks=blocks)
        if is_number is not None:
            given = is_number if series.dtype.is_numeric() else series.is_not_null().to_numpy()
            unreadable += _by_block(given & ~is_number, block, blocks)
            missing += _by_block(~given, block, blocks)
    return CellCounts(cells, counts, missing, unreadable)


def _may_be_numbers(dtype: pl.DataType, cells: ColumnCells) -> bool:
    """Whether values of that type are numbers of these cells: times are none, and flags only 0 and 1."""
    if dtype.is_temporal():
        return False
    return dtype != pl.Boolean or bool(cells.edges[1] >= -1e-9 and cells.edges[-2] <= 1)


def _none(series: pl.Series) -> tuple[Floats, Flags]:
    return np.zeros(0), np.zeros(len(series), dtype=np.bool_)


def _values(series: pl.Series) -> tuple[Floats, Flags | None]:
    """The values that are numbers, and which rows have one; None: all."""
    if series.dtype.is_nested() or series.dtype == pl.Binary:
        return _none(series)
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    number = series.cast(pl.Float64, strict=False)
    if number.null_count():
        number = number.fill_null(float("nan"))
    values = number.to_numpy()
    lacking = np.isnan(values)
    if not lacking.any():
        return values, None
    return values[~lacking], ~lacking


def _by_block(rows: Flags, block: Blocks, blocks: int) -> Codes:
    if block is None:
        return np.array([rows.sum()], dtype=np.int64)
    return np.bincount(block[rows], minlength=blocks)

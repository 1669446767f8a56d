"""The distance of new values of a column from those accepted before, in cells that the earlier ones make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import Field
from cumulant.data.checks.batches import period_of
from cumulant.data.parts.packs import blocks_of, load_part
from cumulant.data.parts.part import PartContext
from cumulant.data.snapshot import RowRange, Snapshot
from cumulant.data.text.casts import conform
from cumulant.statistics.drift.bins import Grid, groups
from cumulant.statistics.drift.bins import cells as drift_cells
from cumulant.statistics.drift.bins import grid as drift_grid
from cumulant.statistics.drift.effects import sum_groups
from cumulant.statistics.drift.evidence import two_samples
from cumulant.statistics.drift.intervals import effect
from cumulant.statistics.drift.stationary import steady_from
from cumulant.statistics.rows import Codes, Floats

VALUE, BLOCK = "value", "block"
#: of the earlier rows, the newest that are read, and the parts that they are read from
_ROWS, _PARTS = 1_000_000, 200
#: values with a cell of their own; all others share a single cell
_ALONE = 200
_NO_DISTANCE = ("time", "date", "bytes")


class Distance(NamedTuple):
    """A Jensen-Shannon distance without what chance adds, the lower end of its interval, and whether it is chance."""

    value: float
    low: float
    p: float


@dataclass(frozen=True)
class ReferenceCounts:
    """Counts [blocks, cells] of earlier rows, nulls in the last cell; cells of numbers (`grid`), or of `values`."""

    counts: Floats
    grid: Grid | None
    values: tuple[str, ...] = ()

    @staticmethod
    def of(field: Field, previous: Snapshot | None, context: PartContext, *, least: float) -> ReferenceCounts | None:
        """From the newest rows of the last accepted snapshot that do not move by themselves by `least`; None where it
        has none of the column's type.
        """
        rows = None if previous is None or field.dtype in _NO_DISTANCE else _earlier_values(field, previous, context)
        if previous is None or rows is None or rows[VALUE].null_count() == rows.height:
            return None
        grid, values = None, ()
        if field.dtype == "float" or (field.dtype == "int" and not previous.profile[field.name].top):
            numbers = _numbers(rows)
            finite = np.sort(numbers[np.isfinite(numbers)])
            if not len(finite):
                return None
            grid = drift_grid(finite)
        else:
            texts = rows.select(pl.col(VALUE).cast(pl.String).drop_nulls()).to_series()
            values = tuple(texts.value_counts(sort=True)[VALUE].head(_ALONE).to_list())
        whole = ReferenceCounts(np.zeros((0, 0)), grid, values)
        counts = whole.cells(rows)
        return ReferenceCounts(counts[steady_from(counts, least) :], grid, values)

    def cells(self, rows: pl.DataFrame) -> Floats:
        """How many rows lie in each cell: [blocks, cells], blocks in the order of their names."""
        blocks = rows[BLOCK].rank("dense").to_numpy().astype(np.int64) - 1
        count = int(blocks.max()) + 1
        null = rows[VALUE].is_null().to_numpy()
        if self.grid is not None:
            result = drift_cells(_numbers(rows), self.grid, block=blocks[~null], blocks=count)
        else:
            result = _of_values(rows.filter(~pl.Series(null)), self.values, blocks[~null], count)
        nulls = np.bincount(blocks[null], minlength=count)
        return np.column_stack([result, nulls]).astype(np.float64)


def measure_distance(reference: ReferenceCounts, rows: pl.DataFrame, *, level: float, least: float) -> Distance | None:
    """How far `rows` (`value`, `block`) are from the reference, with an interval at `level`; None where a difference
    by chance is not less likely than `least`.
    """
    earlier, current = reference.counts, reference.cells(rows)
    pooled = (earlier.sum(axis=0) + current.sum(axis=0))[:-1]
    smaller = min(float(earlier.sum()), float(current.sum()))
    group = groups(pooled, smaller, ordered=reference.grid is not None)
    earlier_cells, current_cells = (
        np.column_stack([sum_groups(counts[:, :-1], group), counts[:, -1]]) for counts in (earlier, current)
    )
    evidence = two_samples(earlier_cells, current_cells)
    if evidence.p >= least:
        return None  # the interval takes most of the time
    result = effect(earlier_cells, current_cells, design=evidence.design, level=level)
    return Distance(result.value, result.low, evidence.p)


def collect_values(rows: pl.LazyFrame, field: Field, context: PartContext) -> pl.DataFrame:
    """The values of a column (`value`), and the day or declared period of each (`block`); empty without a time."""
    period, time = period_of(context.spec, default="day"), context.spec.time
    fields = [field] if time is None or time.column == field.name else [field, Field(time.column, "time")]
    label = pl.lit("") if period is None else period
    return conform(rows, fields).select(pl.col(field.name).alias(VALUE), label.alias(BLOCK)).collect()


def _earlier_values(field: Field, previous: Snapshot, context: PartContext) -> pl.DataFrame | None:
    if all(own.name != field.name or own.dtype != field.dtype for own in previous.fields):
        return None
    frames: list[pl.DataFrame] = []
    rows_wanted = _ROWS
    for rows, files in _ranges(previous, context):
        if rows_wanted <= 0 or len(frames) == _PARTS:
            break
        if not rows.rows:
            continue
        step = max(rows.rows // rows_wanted, 1)
        frame = collect_values(rows.scan(context.tables).gather_every(step), field, context)
        if context.spec.time is None:
            frame = frame.with_columns(files.gather_every(step).alias(BLOCK))
        frames.append(frame)
        rows_wanted -= frame.height
    return pl.concat(reversed(frames)) if frames else None


def _ranges(previous: Snapshot, context: PartContext) -> Iterator[tuple[RowRange, pl.Series]]:
    """The accepted rows, the newest first, and of each row the place of its file as text."""
    parts = [load_part(file.parts[-1], context) for file in previous.files]
    for block in reversed(blocks_of([part for part in parts if part is not None])):
        yield block.range, block.owners().cast(pl.String).str.zfill(9)


def _numbers(rows: pl.DataFrame) -> Floats:
    result: Floats = rows[VALUE].drop_nulls().cast(pl.Float64).to_numpy()
    return result


def _of_values(rows: pl.DataFrame, values: tuple[str, ...], blocks: Codes, count: int) -> Codes:
    """Counts of each of `values`, and of all others in a last cell."""
    places = {value: place for place, value in enumerate(values)}
    codes = rows.select(
        pl.col(VALUE).cast(pl.String).replace_strict(places, default=len(values), return_dtype=pl.Int64)
    ).to_series()
    width = len(values) + 1
    return np.bincount(blocks * width + codes.to_numpy(), minlength=count * width).reshape(count, width)

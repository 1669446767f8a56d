"""The distance of new values of a column from those accepted before, in cells that the earlier ones make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import Field
from cumulant.data.checks.batches import period_of
from cumulant.data.parts.packs import blocks_of, stored_part
from cumulant.data.parts.part import Workshop
from cumulant.data.snapshot import RowRange, Snapshot
from cumulant.data.text.casts import conform
from cumulant.statistics import drift
from cumulant.statistics.drift.effects import gathered
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
class Reference:
    """Counts [blocks, cells] of earlier rows, nulls in the last cell; cells of numbers (`grid`), or of `values`."""

    counts: Floats
    grid: drift.Grid | None
    values: tuple[str, ...] = ()

    @staticmethod
    def of(field: Field, previous: Snapshot | None, shop: Workshop, *, least: float) -> Reference | None:
        """From the newest rows of the last accepted snapshot that do not move by themselves by `least`; None where it
        has none of the column's type.
        """
        rows = None if previous is None or field.dtype in _NO_DISTANCE else _earlier(field, previous, shop)
        if previous is None or rows is None or rows[VALUE].null_count() == rows.height:
            return None
        grid, values = None, ()
        if field.dtype == "float" or (field.dtype == "int" and not previous.profile[field.name].top):
            numbers = _numbers(rows)
            finite = np.sort(numbers[np.isfinite(numbers)])
            if not len(finite):
                return None
            grid = drift.grid(finite)
        else:
            texts = rows.select(pl.col(VALUE).cast(pl.String).drop_nulls()).to_series()
            values = tuple(texts.value_counts(sort=True)[VALUE].head(_ALONE).to_list())
        whole = Reference(np.zeros((0, 0)), grid, values)
        counts = whole.cells(rows)
        return Reference(counts[steady_from(counts, least) :], grid, values)

    def cells(self, rows: pl.DataFrame) -> Floats:
        """How many rows lie in each cell: [blocks, cells], blocks in the order of their names."""
        blocks = rows[BLOCK].rank("dense").to_numpy().astype(np.int64) - 1
        count = int(blocks.max()) + 1
        null = rows[VALUE].is_null().to_numpy()
        if self.grid is not None:
            result = drift.cells(_numbers(rows), self.grid, block=blocks[~null], blocks=count)
        else:
            result = _of_values(rows.filter(~pl.Series(null)), self.values, blocks[~null], count)
        nulls = np.bincount(blocks[null], minlength=count)
        return np.column_stack([result, nulls]).astype(np.float64)


def distance_of(reference: Reference, rows: pl.DataFrame, *, level: float, least: float) -> Distance | None:
    """How far `rows` (`value`, `block`) are from the reference, with an interval at `level`; None where a difference
    by chance is not less likely than `least`.
    """
    earlier, current = reference.counts, reference.cells(rows)
    pooled = (earlier.sum(axis=0) + current.sum(axis=0))[:-1]
    smaller = min(float(earlier.sum()), float(current.sum()))
    group = drift.groups(pooled, smaller, ordered=reference.grid is not None)
    left, right = (np.column_stack([gathered(counts[:, :-1], group), counts[:, -1]]) for counts in (earlier, current))
    evidence = drift.two_samples(left, right)
    if evidence.p >= least:
        return None  # the interval takes most of the time
    result = drift.effect(left, right, design=evidence.design, level=level)
    return Distance(result.value, result.low, evidence.p)


def with_blocks(rows: pl.LazyFrame, field: Field, shop: Workshop) -> pl.DataFrame:
    """The values of a column (`value`), and the day or declared period of each (`block`); empty without a time."""
    period, time = period_of(shop.spec, default="day"), shop.spec.time
    fields = [field] if time is None or time.column == field.name else [field, Field(time.column, "time")]
    label = pl.lit("") if period is None else period
    return conform(rows, fields).select(pl.col(field.name).alias(VALUE), label.alias(BLOCK)).collect()


def _earlier(field: Field, previous: Snapshot, shop: Workshop) -> pl.DataFrame | None:
    if all(own.name != field.name or own.dtype != field.dtype for own in previous.fields):
        return None
    frames: list[pl.DataFrame] = []
    left = _ROWS
    for rows, files in _ranges(previous, shop):
        if left <= 0 or len(frames) == _PARTS:
            break
        if not rows.rows:
            continue
        step = max(rows.rows // left, 1)
        frame = with_blocks(rows.scan(shop.tables).gather_every(step), field, shop)
        if shop.spec.time is None:
            frame = frame.with_columns(files.gather_every(step).alias(BLOCK))
        frames.append(frame)
        left -= frame.height
    return pl.concat(reversed(frames)) if frames else None


def _ranges(previous: Snapshot, shop: Workshop) -> Iterator[tuple[RowRange, pl.Series]]:
    """The accepted rows, the newest first, and of each row the place of its file as text."""
    parts = [stored_part(file.parts[-1], shop) for file in previous.files]
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

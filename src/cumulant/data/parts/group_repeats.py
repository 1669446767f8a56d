"""Rows whose values came before, among more rows than fit in memory: by partitions of their hash, on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from cumulant.data.parts.spill import MemoryBudget, Spill, spill_in
from cumulant.data.rules.unique import mark_repeats
from cumulant.data.spec import SourceSpec

_PARTITION = "__partition"
#: how many times the bytes of its rows an evaluation takes: the rows, in order, and the table of their values
_TIMES = 5
#: of the memory that is free, what one partition should take
_TARGET = 0.35
_SAMPLE = 65_536


#: the rows of a source, frame by frame; called again they come again
Frames = Callable[[], Iterator[pl.DataFrame]]


def find_repeats(
    frames: Frames,
    columns: Sequence[str],
    order: Sequence[str],
    spec: SourceSpec,
    *,
    rows: int,
    budget: MemoryBudget,
    in_order: bool,
) -> pl.DataFrame:
    """Those of `rows` rows whose values of `columns` came before in `order`: their values of `order`, in it.

    `order`: columns that distinguish all rows; with `in_order` the rows come in it.

    Raises:
        StorageError: the disk is full.
    """
    groups = group_equal_rows(frames, columns, rows=rows, budget=budget)
    repeats = [_repeats(group, columns, order, spec, in_order=in_order) for group in groups]
    if len(repeats) == 1:
        return repeats[0]
    empty = next(frames()).clear().select(order)
    return pl.concat([empty, *repeats]).sort(order, nulls_last=True)


def group_equal_rows(
    frames: Frames, columns: Sequence[str], *, rows: int, budget: MemoryBudget
) -> Iterator[pl.DataFrame]:
    """Frames that hold all rows of equal values of `columns`: one where they fit in memory, else by partitions.

    Partitions leave out rows that have a null there.

    Raises:
        StorageError: the disk is full.
    """
    count = _partitions(frames, rows, budget)
    if count == 1:
        yield pl.concat(frames())
        return
    with spill_in(budget.scratch) as spill:
        for name in _scatter(frames, columns, count, spill):
            yield pl.concat(spill.appended(name))
            spill.delete([name])


def _partitions(frames: Frames, rows: int, budget: MemoryBudget) -> int:
    sample = next((frame for frame in frames() if frame.height), pl.DataFrame()).head(_SAMPLE)
    width = sample.estimated_size() / max(sample.height, 1)
    return max(1, math.ceil(rows * width * _TIMES / (budget.free * _TARGET)))


def _repeats(
    frame: pl.DataFrame, columns: Sequence[str], order: Sequence[str], spec: SourceSpec, *, in_order: bool
) -> pl.DataFrame:
    frame = frame if in_order else frame.sort(order, nulls_last=True)
    return frame.filter(mark_repeats(columns, spec)).select(order)


def _scatter(frames: Frames, columns: Sequence[str], count: int, spill: Spill) -> list[str]:
    """Write the rows of each partition to a file of its own. Rows without a value repeat nothing and are left out."""
    files = dict[str, None]()
    complete = pl.all_horizontal(pl.col(column).is_not_null() for column in columns)
    for frame in frames():
        rows = frame.filter(complete).with_columns((pl.struct(columns).hash() % count).alias(_PARTITION))
        for (number,), part in rows.partition_by(_PARTITION, as_dict=True, include_key=False).items():
            name = f"repeats-{number}"
            spill.append(name, part)
            files[name] = None
    return list(files)

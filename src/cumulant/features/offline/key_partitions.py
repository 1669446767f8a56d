"""Rows divided by the hash of their key, so that the windows of each part are computed by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import numpy as np
import polars as pl

from cumulant.core.expr import columns as columns_of
from cumulant.core.plan import FeaturePlan
from cumulant.data.row_columns import ROW
from cumulant.features.offline.groups import MeasureGroup, event_columns

#: positions of a block that are so many times as far apart as rows are sorted
_NEAR = 4


def row_columns(plan: FeaturePlan) -> list[str]:
    """The columns of the entity source that expressions read."""
    return sorted({name for spec in plan.features if spec.expr is not None for name in columns_of(spec.expr)})


def group_columns(
    plan: FeaturePlan, group: MeasureGroup, dates: AbstractSet[str], *, same: bool
) -> tuple[list[str], list[str]]:
    """The columns that a group reads of its events and of the queries; `same`: the events are the queries.

    `dates`: the columns by which the events have versions, if any.
    """
    assert plan.predict_at is not None
    events = event_columns(group, plan.sources[group.source]) | dates
    queries = {*group.by, plan.predict_at.column}
    if same:
        events = queries = events | queries
    return [*sorted(events), ROW], [*sorted(queries), ROW]


def scatter(
    rows: pl.DataFrame, by: tuple[str, ...], count: int, *, divisor: int = 1
) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of each of `count` partitions, by the hash of the key over `divisor`. Those without a key, by position.

    Hashes are the same in all processes with one version and build of Polars (`probe_hashes`).
    """
    keyless = pl.any_horizontal(pl.col(name).is_null() for name in by)
    hashed = pl.when(keyless).then(pl.col(ROW).cast(pl.UInt64)).otherwise(pl.struct(by).hash())
    numbers = rows.select(hashed // divisor % count).to_series().to_numpy().astype(np.min_scalar_type(count))
    # Numbers of a byte or two are sorted by radix: rows of many partitions cost half of what `partition_by` takes.
    order = np.argsort(numbers, kind="stable").astype(np.uint32)
    grouped, begin = rows.select(pl.all().gather(pl.Series(order))), 0
    for number, size in enumerate(np.bincount(numbers, minlength=count).tolist()):
        if size:
            yield number, grouped.slice(begin, size)
        begin += size


def probe_hashes() -> str:
    """The hashes of some keys: processes in which they differ divide rows otherwise (`scatter`)."""
    keys = pl.DataFrame({"text": ["", "a", "ä" * 40], "number": [0, -1, 1 << 40]})
    return " ".join(str(value) for value in keys.select(pl.struct("text", "number").hash()).to_series())


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by their positions. Where these are near each other, to place them costs a third of sorting them."""
    positions = rows[ROW].to_numpy()
    places = positions - positions.min()
    if int(places.max()) >= _NEAR * len(places):
        return rows.sort(ROW)
    order = np.full(int(places.max()) + 1, -1, dtype=np.int32)
    order[places] = np.arange(len(places), dtype=np.int32)
    return rows[order[order >= 0] if len(order) > len(places) else order]

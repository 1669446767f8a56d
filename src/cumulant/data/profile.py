"""Profiles of columns, mergeable over the parts of a snapshot.

Counts, sums and extremes merge exactly. Quantiles are 65 equally spaced ones a part; merged ones are off by at most one
64th in rank. Personal columns have counts only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.plan import DType, Field

if TYPE_CHECKING:
    import polars as pl

CELLS = 64
TOP = 50


class TopValue(msgspec.Struct, frozen=True):
    value: str
    count: int


class ColumnProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One column. Times are microseconds since 1970 UTC, dates days, booleans 0 and 1.

    `distinct`: approximate, of several parts the largest. `quantiles`: from minimum to maximum in equal steps of rank.
    `top`: the most frequent values as text, with their rows.
    """

    name: str
    dtype: DType
    rows: int
    nulls: int
    distinct: int
    personal: bool = False
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    top: tuple[TopValue, ...] = ()

    @property
    def null_share(self) -> float:
        return self.nulls / self.rows if self.rows else 0.0


class Profile(msgspec.Struct, frozen=True):
    rows: int
    columns: tuple[ColumnProfile, ...] = ()

    def __getitem__(self, name: str) -> ColumnProfile:
        return next(column for column in self.columns if column.name == name)

    def __contains__(self, name: object) -> bool:
        return any(column.name == name for column in self.columns)


def profile(frame: pl.DataFrame, fields: Sequence[Field]) -> Profile:
    """The profile of a part in one pass over its columns; decimals count as floats."""
    import polars as pl

    frame = frame.with_columns(
        pl.col(name).cast(pl.Float64) for name in frame.columns if frame[name].dtype.is_decimal()
    )
    basics = [pl.col(field.name).null_count().alias(f"nulls:{field.name}") for field in fields]
    basics += [pl.col(field.name).approx_n_unique().alias(f"distinct:{field.name}") for field in fields]
    for field in fields:
        basics += _numbers(field)
    row = frame.select(basics).row(0, named=True) if fields else {}
    return Profile(frame.height, tuple(_column(frame, field, row) for field in fields))


def _numbers(field: Field) -> list[pl.Expr]:
    """Extremes, mean, deviation and quantiles of a column, as one row."""
    import polars as pl

    if field.personal or field.dtype in ("str", "bytes", "bool"):
        return []
    number = pl.col(field.name).to_physical().cast(pl.Float64)
    number = number.filter(number.is_finite())
    steps = pl.int_range(CELLS + 1).cast(pl.Float64) / CELLS
    ordered = number.sort()
    ranks = (steps * (ordered.len().cast(pl.Int64) - 1).clip(0)).round().cast(pl.UInt32)
    points = pl.when(ordered.len() > 0).then(ordered.gather(ranks, null_on_oob=True)).implode()
    return [
        number.min().alias(f"min:{field.name}"),
        number.max().alias(f"max:{field.name}"),
        number.mean().alias(f"mean:{field.name}"),
        number.std(ddof=0).alias(f"std:{field.name}"),
        points.alias(f"quantiles:{field.name}"),
    ]


def _column(frame: pl.DataFrame, field: Field, row: dict[str, object]) -> ColumnProfile:
    name = field.name
    nulls, distinct = int(str(row[f"nulls:{name}"])), int(str(row[f"distinct:{name}"]))
    points = row.get(f"quantiles:{name}")
    quantiles = tuple(float(value) for value in points if value is not None) if isinstance(points, list) else ()
    low, high = _finite(row.get(f"min:{name}")), _finite(row.get(f"max:{name}"))
    mean, std = _finite(row.get(f"mean:{name}")), _finite(row.get(f"std:{name}"))
    if low is not None and high is not None and (mean is None or std is None):
        mean, std = _moments_of_huge(frame[name], max(-low, high))
    return ColumnProfile(
        name=name,
        dtype=field.dtype,
        rows=frame.height,
        nulls=nulls,
        distinct=max(distinct - (nulls > 0), 0),
        personal=field.personal,
        min=low,
        max=high,
        mean=mean,
        std=std,
        quantiles=quantiles,
        top=_top(frame, field, distinct),
    )


def _moments_of_huge(values: pl.Series, largest: float) -> tuple[float, float]:
    """Mean and deviation of finite values whose sum or squares are beyond the range of floats."""
    unit = power_of_two(largest)
    scaled = values.filter(values.is_finite()).to_numpy() / unit
    return float(scaled.mean()) * unit, float(scaled.std()) * unit


def power_of_two(largest: float) -> float:
    """By which values of this magnitude are near 1, so that their squares are finite; division by it loses nothing."""
    return float(2.0 ** min(max(math.frexp(largest)[1], -1000), 1000))


def _top(frame: pl.DataFrame, field: Field, distinct: int) -> tuple[TopValue, ...]:
    import polars as pl

    countable = field.dtype in ("str", "bool") or (field.dtype == "int" and distinct <= TOP)
    if field.personal or not countable or frame.height == 0:
        return ()
    counts = (
        frame.lazy()
        .select(pl.col(field.name).drop_nulls().alias("value"))
        # Not `value_counts`: its two fields are at times taken of two counts whose orders differ.
        .group_by("value")
        .agg(pl.len().alias("count"))
        .with_columns(pl.col("value").cast(pl.String))
        .sort(["count", "value"], descending=[True, False])
        .head(TOP)
        .collect()
    )
    return tuple(TopValue(value, count) for value, count in counts.iter_rows())


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def merge(profiles: Iterable[Profile], fields: Sequence[Field]) -> Profile:
    """The profile of several parts together; a part that lacks a column counts as nulls."""
    parts = list(profiles)
    return Profile(sum(part.rows for part in parts), tuple(_merge_column(parts, field) for field in fields))


def _merge_column(parts: Sequence[Profile], field: Field) -> ColumnProfile:
    columns = [part[field.name] for part in parts if field.name in part]
    rows = sum(part.rows for part in parts)
    nulls = rows - sum(column.rows - column.nulls for column in columns)
    mean, std = _moments(columns)
    return ColumnProfile(
        name=field.name,
        dtype=field.dtype,
        rows=rows,
        nulls=nulls,
        distinct=max((column.distinct for column in columns), default=0),
        personal=field.personal,
        min=min((column.min for column in columns if column.min is not None), default=None),
        max=max((column.max for column in columns if column.max is not None), default=None),
        mean=mean,
        std=std,
        quantiles=_pooled(columns),
        top=_merged_top(columns),
    )


def _moments(columns: Sequence[ColumnProfile]) -> tuple[float | None, float | None]:
    """Mean and deviation of the union (Chan, Golub and LeVeque's pairwise update)."""
    filled = [
        (column.rows - column.nulls, column.mean, column.std)
        for column in columns
        if column.mean is not None and column.std is not None and column.rows > column.nulls
    ]
    unit = power_of_two(max((max(abs(mean), std) for _, mean, std in filled), default=0.0))
    count, mean, squares = 0, 0.0, 0.0
    for size, own_mean, own_std in filled:
        gap, total = own_mean / unit - mean, count + size
        squares += (own_std / unit) ** 2 * size + gap**2 * count * size / total
        mean += gap * size / total
        count = total
    return (mean * unit, math.sqrt(squares / count) * unit) if count else (None, None)


def _pooled(columns: Sequence[ColumnProfile]) -> tuple[float, ...]:
    filled = [column for column in columns if column.quantiles]
    if len(filled) == 1:
        return filled[0].quantiles
    points = sorted((value, column.rows - column.nulls) for column in filled for value in column.quantiles)
    if not points:
        return ()
    total, reached, pooled = sum(weight for _, weight in points), 0.0, [points[0][0]]
    for value, weight in points:
        reached += weight
        while len(pooled) <= CELLS and reached >= total * len(pooled) / CELLS:
            pooled.append(value)
    pooled += [points[-1][0]] * (CELLS + 1 - len(pooled))
    return tuple(pooled)


def _merged_top(columns: Sequence[ColumnProfile]) -> tuple[TopValue, ...]:
    counts: dict[str, int] = {}
    for column in columns:
        for item in column.top:
            counts[item.value] = counts.get(item.value, 0) + item.count
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(TopValue(value, count) for value, count in ranked[:TOP])

"""The offline engine: features of many rows at once, each as of the row's own prediction moment.

A row known at its prediction counts in its own windows, exactly once. Of `rows` given apart, one whose key and window
key the history holds is that row; any other counts as if appended, in its own windows only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import FeaturePlan
from cumulant.data.row_columns import ROW
from cumulant.features.definition.dtypes import Kind
from cumulant.features.definition.stages import expression_stages
from cumulant.features.offline.frames import kinds, read_fields
from cumulant.features.offline.groups import MeasureGroup, groups_of
from cumulant.features.offline.polars_compiler import TYPES, expression
from cumulant.features.offline.versions import as_predicted
from cumulant.features.offline.windows import GroupWindows

#: each group holds its own sorted copies, so that more threads cost memory
MOST_THREADS = 4


def compute(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    *,
    rows: pl.LazyFrame | pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Features of every row of the entity source, or of `rows` with `frames` as their history.

    Args:
        plan: what to compute.
        frames: the rows of each source of the plan, in source order, or all versions of them (`versions`).
        rows: raw rows with the plan's request fields; nullable ones may be absent.

    Returns:
        One row an input row, in order: `__row` (of the input, or counted from 0) and `plan.names`.

    Raises:
        DataError: a frame or column is absent, or has another type than when the plan was made.
    """
    history = _read_sources(plan, frames, with_entity=rows is None or _looks_back_at(plan, plan.entity))
    entity = plan.sources[plan.entity]
    if rows is None:
        queries = as_predicted(history[plan.entity].lazy(), entity, plan.predict_at).collect()
    else:
        queries = read_fields(plan.entity, plan.request, rows, optional=True)
    columns: dict[str, pl.Series] = {}

    def measured(group: MeasureGroup) -> dict[str, pl.Series]:
        apart = rows is not None and group.counts_itself
        return GroupWindows(plan, group, history[group.source], queries, apart=apart).results()

    # numpy leaves the interpreter free while it sorts and searches, so groups run side by side
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        for results in pool.map(measured, groups_of(plan)):
            columns.update(results)
    fields = entity.fields if rows is None else plan.request
    return with_expressions(plan, kinds(fields), queries, columns)


def _looks_back_at(plan: FeaturePlan, source: str) -> bool:
    measures = (spec.window or spec.lookup for spec in plan.features)
    return any(measure is not None and measure.source == source for measure in measures)


def _read_sources(
    plan: FeaturePlan, frames: Mapping[str, pl.LazyFrame | pl.DataFrame], *, with_entity: bool
) -> dict[str, pl.DataFrame]:
    read_frames = {}
    for name, source in plan.sources.items():
        if name == plan.entity and not with_entity:
            continue
        if name not in frames:
            raise DataError(f"the rows of {name} are needed for its features", subject=name)
        read_frames[name] = read_fields(name, source.fields, frames[name])
    return read_frames


def with_expressions(
    plan: FeaturePlan, raw: Mapping[str, Kind], queries: pl.DataFrame, measured: Mapping[str, pl.Series]
) -> pl.DataFrame:
    """Columns and expressions beside the measured features, in stages of those that do not need each other."""
    frame = queries.rename({name: _raw(name) for name in raw})
    frame = frame.with_columns(series.alias(name) for name, series in measured.items())
    features: dict[str, Kind] = {spec.name: spec.dtype for spec in plan.features}
    for stage in expression_stages(plan.features, measured):
        frame = frame.with_columns(
            expression(spec.expr, raw, features, column=lambda name: pl.col(_raw(name)))
            .cast(TYPES[spec.dtype])
            .alias(spec.name)
            for spec in stage
            if spec.expr is not None
        )
    return frame.select(ROW, *plan.names)


def _raw(name: str) -> str:
    """Raw columns, renamed apart from features of the same name."""
    return f"raw {name}"

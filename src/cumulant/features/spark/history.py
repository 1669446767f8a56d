"""The features of a whole history, computed by an engine of SQL elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import FeaturePlan, Source
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.offline.frames import scan_fields
from cumulant.features.offline.polars_compiler import TYPES
from cumulant.features.offline.row_order import row_identities
from cumulant.features.offline.versions import as_predicted
from cumulant.features.spark.compiler import ROWS, SETTINGS, QueryView, compile_query
from cumulant.features.spark.windows import IDENTITY
from cumulant.ports.compute import HistoryEngine


def compute_history(
    plan: FeaturePlan, frames: Mapping[str, pl.LazyFrame | pl.DataFrame], engine: HistoryEngine
) -> Iterator[pl.DataFrame]:
    """`offline.compute` of every row of the entity source, block by block. Values are equal within a relative 1e-9.

    Raises:
        DataError: a frame or column is absent, or has another type than when the plan was made; or the engine fails.
        EngineUnavailableError: the engine does not answer.
        StorageError: rows cannot be handed over.
    """
    query = compile_query(plan)
    views = {view.view: _view(plan, view, frames) for view in query.inputs}
    types = {ROW: pl.Int64, **{spec.name: TYPES[spec.dtype] for spec in plan.features}}
    rows = 0
    with engine.query(query.text, views, order_by=ROW, settings=SETTINGS) as blocks:
        for block in blocks:
            rows += block.height
            yield block.select(pl.col(name).cast(types[name]) for name in (ROW, *plan.names))
    entity = views.get(ROWS, views.get(plan.entity))
    count = None if entity is None else entity.select(pl.len()).collect().item()
    if rows != count:
        raise DataError(f"Spark gave {rows:,} rows for {count:,}", subject="history", hint="see Spark's own log")


def _view(plan: FeaturePlan, view: QueryView, frames: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> pl.LazyFrame:
    if view.view != ROWS:
        return input_frame(plan.sources[view.view], view, frames[view.view])
    entity = plan.sources[plan.entity]
    rows = scan_fields(entity.name, entity.fields, frames[plan.entity])
    return input_frame(entity, view, as_predicted(rows, entity, plan.predict_at))


def input_frame(source: Source, view: QueryView, frame: pl.LazyFrame | pl.DataFrame) -> pl.LazyFrame:
    """The columns of a view: the fields of its source in their inside types, and what else the query reads."""
    rows = scan_fields(source.name, source.fields, frame)
    if IDENTITY in view.columns:
        identities = pl.struct(source.key).map_batches(
            lambda keys: pl.Series(row_identities(keys.struct.unnest(), source)), return_dtype=pl.Int64
        )
        rows = rows.with_columns(identities.alias(IDENTITY))
    if FROM in view.columns and FROM not in rows.collect_schema():  # no row has been corrected
        rows = rows.with_columns(pl.lit(None, dtype=pl.Int64).alias(column) for column in (FROM, UNTIL))
    return rows.select(view.columns)

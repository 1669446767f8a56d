"""The features of a whole history, computed by processes of an engine, whose memory a partition of keys has to fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from cumulant.core.errors import DataError, StepFailedError
from cumulant.core.plan import FeaturePlan
from cumulant.data.row_columns import FROM, ROW
from cumulant.features.distributed.layout import (
    Division,
    Slice,
    Table,
    WorkLayout,
    event_columns_of,
    file_path,
    query_columns_of,
    staging_errors,
)
from cumulant.features.distributed.stages import divide, features, windows
from cumulant.features.offline.frames import scan_fields
from cumulant.features.offline.groups import groups_of
from cumulant.features.offline.key_partitions import probe_hashes
from cumulant.features.offline.memory_need import SourceSize, output_width
from cumulant.features.offline.offline import compute
from cumulant.features.offline.versions import as_predicted
from cumulant.ports.compute import HistoryEngine, HistorySession, WorkerStage

Frames = Mapping[str, pl.LazyFrame | pl.DataFrame]
_QUERIES = "queries"
_SAMPLE = 65_536
_ROW_GROUP = 65_536
_DIVISION = Division()


def compute_history(plan: FeaturePlan, frames: Frames, engine: HistoryEngine) -> Iterator[pl.DataFrame]:
    """`offline.compute` of every row of the entity source, block by block: the same values.

    Raises:
        DataError: a frame or column is absent, or has another type than when the plan was made.
        CumulantError: as the engine's.
    """
    with engine.session() as session:
        yield from compute_in(session, plan, frames)


def compute_in(
    session: HistorySession,
    plan: FeaturePlan,
    frames: Frames,
    *,
    rows: pl.LazyFrame | pl.DataFrame | None = None,
    division: Division = _DIVISION,
) -> Iterator[pl.DataFrame]:
    """As `offline.compute`, in a session."""
    layout = _hand_over(plan, frames, rows, session.folder, division)
    queries = layout.queries
    if not queries.rows:
        yield compute(plan, {name: frame.lazy().head(0) for name, frame in frames.items()}, rows=rows)
        return
    arguments: dict[str, Any] = msgspec.to_builtins(layout)
    blocks = len(queries.slices())

    def stage(function: Any, parts: int) -> WorkerStage:
        return WorkerStage(f"{function.__module__}:{function.__name__}", arguments, parts)

    if layout.groups:
        tables = {table.file: table for table in (*layout.tables.values(), queries)}.values()
        slices = [msgspec.msgpack.encode(Slice(of.file, begin)) for of in tables for begin in of.slices()]
        stages = [stage(divide, len(slices)), stage(windows, layout.keys), stage(features, blocks)]
    else:
        slices, stages = [b""] * blocks, [stage(features, blocks)]
    counts = {block.key: block.order for block in session.run(slices, stages)}
    if sum(counts.values()) != queries.rows:
        raise StepFailedError(
            f"features of {sum(counts.values()):,} rows were computed for {queries.rows:,}", subject="history"
        )
    for number in range(blocks):
        with staging_errors(session.folder):
            block = pl.read_parquet(layout.result(number))
        yield block
        layout.result(number).unlink()


def _hand_over(
    plan: FeaturePlan, frames: Frames, rows: pl.LazyFrame | pl.DataFrame | None, folder: Path, division: Division
) -> WorkLayout:
    """The files of what is read, and how the work on them is divided."""
    groups, entity = groups_of(plan), plan.sources[plan.entity]
    scanned = {name: _scan(plan, name, frames) for name in plan.sources if rows is None or name != plan.entity}
    if rows is not None and any(group.source == plan.entity for group in groups):
        scanned[plan.entity] = _scan(plan, plan.entity, frames)
    dated = {name for name, frame in scanned.items() if FROM in frame.collect_schema()}
    read, files, apart = {group.source for group in groups}, dict[str, str](), rows is not None
    shared = not apart and plan.entity not in dated  # rows of the entity are events and queries
    with staging_errors(folder):
        for number, name in enumerate(sorted(read)):
            columns = event_columns_of(plan, name, dated=name in dated)
            columns |= {*plan.sources[name].key} if apart else set()
            if name == plan.entity and shared:
                columns |= query_columns_of(plan)
            files[name] = _write(scanned[name].select(sorted(columns)), folder, f"source-{number}")
        if rows is not None:
            queries = _write(scan_fields(plan.entity, plan.request, rows, optional=True), folder, _QUERIES)
        elif plan.entity in read and shared:
            queries = files[plan.entity]
        else:
            predicted = as_predicted(_on_disk(scanned[plan.entity], folder), entity, plan.predict_at)
            queries = _write(predicted.select(sorted(query_columns_of(plan))), folder, _QUERIES)
        sizes = {file: _size(folder, file) for file in {*files.values(), queries}}
        size = sizes[queries]  # their features are in memory beside them
        step = division.step(size.rows, 2 * output_width(plan, size.width))
        table = Table(queries, size.rows, step, dated=False)
        positions = pl.scan_parquet(file_path(folder, queries)).select(ROW)
        last = (min(begin + table.step, table.rows) - 1 for begin in table.slices())
        ends = tuple(positions.slice(place, 1).collect().item() for place in last)  # not all positions at once
    return WorkLayout(
        plan_document=msgspec.to_builtins(plan),
        folder=str(folder),
        tables={
            name: table
            if file == queries
            else Table(file, sizes[file].rows, division.step(*sizes[file]), name in dated)
            for name, file in files.items()
        },
        queries=table,
        apart=apart,
        partitions=tuple(division.partitions(group, sizes[files[group.source]], size) for group in groups),
        ends=ends,
        hashes=probe_hashes(),
    )


def _scan(plan: FeaturePlan, name: str, frames: Frames) -> pl.LazyFrame:
    if name not in frames:
        raise DataError(f"the rows of {name} are needed for its features", subject=name)
    return scan_fields(name, plan.sources[name].fields, frames[name])


def _on_disk(frame: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """Rows with versions as a file of their own, which is read several times."""
    if FROM not in frame.collect_schema():
        return frame
    return pl.scan_parquet(file_path(folder, _write(frame, folder, "versions")))


def _write(frame: pl.LazyFrame, folder: Path, file: str) -> str:
    frame.sink_parquet(file_path(folder, file), compression="lz4", row_group_size=_ROW_GROUP, maintain_order=True)
    return file


def _size(folder: Path, file: str) -> SourceSize:
    rows = pl.scan_parquet(file_path(folder, file))
    sample = rows.head(_SAMPLE).collect()
    return SourceSize(rows.select(pl.len()).collect().item(), sample.estimated_size() / max(sample.height, 1))

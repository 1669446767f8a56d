"""The flow `features`: the feature table of the entity source, point in time correct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.core.plan import FeaturePlan
from cumulant.core.progress import Progress, silent
from cumulant.core.refs import TableRef
from cumulant.flows.data.memory_budget import SPILL, room_of
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.earlier_features import FEATURES, ExtendedTable, Inputs, extend_table
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.training.task import Task, resolve_task

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.snapshot import Snapshot
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project


_FRAME_ROWS = 131_072


class FeatureSet(msgspec.Struct, frozen=True, kw_only=True):
    """The feature table: one row an entity row, in order, with `__row` and the plan's names as columns."""

    run: str
    plan: FeaturePlan
    table: TableRef
    rows: int
    sources: dict[str, str]
    as_of: datetime | None = None
    reused: bool = False
    #: rows that were computed when the table was made; the others are of an earlier table
    computed: int = 0

    @property
    def rows_computed(self) -> int:
        """The rows that this run computed."""
        return 0 if self.reused else self.computed

    @property
    def computed_of(self) -> str | None:
        """How many rows were computed, in words, where others are of an earlier table."""
        if self.reused or self.computed == self.rows:
            return None
        return f"{self.computed:,} of {self.rows:,} rows computed, the others stored"


def featurize(
    project: Project, *, principal: Principal, as_of: datetime | None = None, progress: Progress = silent
) -> FeatureSet:
    """Bring the feature table up to date; with `as_of`, as it would have been then."""
    with open_run(project, "features", action="features.compute", principal=principal, progress=progress) as context:
        snapshots, _ = snapshots_of(context)
        return feature_set(context, resolve_task(project, snapshots), snapshots, as_of=as_of)


def feature_set(
    context: Context, task: Task, snapshots: Mapping[str, Snapshot], *, as_of: datetime | None
) -> FeatureSet:
    """The step `features` of a run."""
    used = used_sources(task.plan, snapshots)
    moment = None if as_of is None else as_of.isoformat()
    inputs = Inputs(plan=msgspec.to_builtins(task.plan), snapshots=used, as_of=moment)
    recorded = msgspec.to_builtins(inputs)
    key, tables = f"features/{digest(recorded)}", context.project.tables()

    def compute() -> dict[str, object]:
        extension = extend_table(context.project, key, task.plan, snapshots, inputs)
        if extension is None:
            rows = scans(context.project, snapshots, used, as_of=as_of)
            table = store_features(context.project, key, task.plan, rows, progress=context.progress)
            extension = ExtendedTable(table, table.rows)
        return {"table": msgspec.to_builtins(extension.table), "computed": extension.computed}

    def tell(transaction: Transaction, result: dict[str, object]) -> None:
        from cumulant.features.events import FeaturesComputed

        table = _table(result)
        transaction.emit(
            FeaturesComputed(
                entity=task.entity,
                table=table.key,
                rows=table.rows,
                rows_computed=_computed_rows(result),
                features=len(task.plan.names),
                sources=used,
                as_of=as_of,
            )
        )

    def stands(result: dict[str, object]) -> bool:
        return tables.find(_table(result).key) is not None

    outcome = context.step(FEATURES, recorded, compute, verify=stands, write=tell)
    table = _table(outcome.result)
    return FeatureSet(
        run=context.run,
        plan=task.plan,
        table=table,
        rows=table.rows,
        sources=used,
        as_of=as_of,
        reused=outcome.reused,
        computed=_computed_rows(outcome.result),
    )


def store_features(
    project: Project, key: str, plan: FeaturePlan, frames: Mapping[str, pl.LazyFrame], *, progress: Progress = silent
) -> TableRef:
    """The features of every entity row, as table `key`; in parts where they take more than `resources.memory`, with
    `progress`.
    """
    from cumulant.features.offline.partitions import compute_within

    room = room_of(project)
    computed = compute_within(plan, frames, memory=room.memory, scratch=project.state / SPILL, progress=progress)
    if not isinstance(computed, Iterator) and computed.height:  # as files of which the next table can share some
        computed = computed.iter_slices(_FRAME_ROWS)
    return project.tables().write(key, computed)


def used_sources(plan: FeaturePlan, snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
    """Source name to snapshot id, of the sources that the plan reads."""
    return {name: snapshots[name].id for name in sorted(plan.sources)}


def scans(
    project: Project, snapshots: Mapping[str, Snapshot], names: Mapping[str, str], *, as_of: datetime | None
) -> dict[str, pl.LazyFrame]:
    """The named snapshots as lazy frames for features, with what became known after `as_of` hidden: of corrected and
    deleted rows every version.
    """
    from cumulant.data.snapshot import scan_versions

    return {name: scan_versions(snapshots[name], project.tables(), as_of=as_of) for name in names}


def deletions(
    project: Project, plan: FeaturePlan, snapshots: Mapping[str, Snapshot], *, as_of: datetime | None
) -> dict[str, pl.LazyFrame]:
    """The deletions in force of the plan's sources, for online state that posted rows correct."""
    from cumulant.data.snapshot import scan_deletions

    frames = {}
    for name, source in plan.sources.items():
        if name in snapshots and not isinstance(source.corrections, msgspec.UnsetType):
            rows = scan_deletions(snapshots[name], project.tables(), as_of=as_of)
            if rows is not None:
                frames[name] = rows
    return frames


def _computed_rows(result: Mapping[str, object]) -> int:
    """The rows that were computed for a table; all where that was not recorded."""
    return msgspec.convert(result.get("computed", _table(result).rows), int)


def _table(result: Mapping[str, object]) -> TableRef:
    return msgspec.convert(result["table"], TableRef)

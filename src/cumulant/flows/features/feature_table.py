"""The flow `features`: the feature table of the entity source, point in time correct."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import NotFoundError, StorageError
from cumulant.core.ids import canonical, digest
from cumulant.core.plan import FeaturePlan, read_plan
from cumulant.core.progress import Progress, silent
from cumulant.core.refs import TableRef
from cumulant.core.version import __version__
from cumulant.data.row_columns import ROW
from cumulant.features.offline.groups import order_rule
from cumulant.flows.data.memory_budget import memory_budget, scratch_folder
from cumulant.flows.data.validate import load_snapshot, snapshots_of
from cumulant.flows.features.task import Task, resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.ports.tables import Protection, TableHead

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.parts.added_rows import SharedRows
    from cumulant.data.snapshot import Snapshot
    from cumulant.features.offline.incremental import GrownSource
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

_FRAME_ROWS = 131_072
Kept = tuple["SharedRows", ...]
FEATURES = "features"
#: so many earlier tables are tried, the newest first
_TRIED = 3


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
        return 0 if self.reused else self.computed

    @property
    def computed_of(self) -> str | None:
        """How many rows were computed, in words, where others are of an earlier table."""
        if self.reused or self.computed == self.rows:
            return None
        return f"{self.computed:,} of {self.rows:,} rows computed, the others stored"


@verb("features.compute", personal=True)
def featurize(
    project: Project, *, principal: Principal, as_of: datetime | None = None, progress: Progress = silent
) -> FeatureSet:
    """Bring the feature table up to date; with `as_of`, as it would have been then."""
    with open_run(project, "features", principal=principal, progress=progress) as context:
        snapshots, _ = snapshots_of(context)
        return feature_set(context, resolve_task(project, snapshots), snapshots, as_of=as_of)


def feature_set(
    context: Context, task: Task, snapshots: Mapping[str, Snapshot], *, as_of: datetime | None
) -> FeatureSet:
    """The step `features` of a run."""
    used = used_sources(task.plan, snapshots)
    moment = None if as_of is None else as_of.isoformat()
    inputs = Inputs(plan=msgspec.to_builtins(task.plan), snapshots=used, as_of=moment, order=order_rule(task.plan))
    recorded = msgspec.to_builtins(inputs)
    key, tables = f"features/{digest(recorded)}", context.project.tables()

    def emit(transaction: Transaction, result: dict[str, object]) -> None:
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

    outcome = context.step(
        FEATURES,
        recorded,
        lambda: _compute(context, key, task.plan, snapshots, inputs),
        function=StepFunction(f"{__name__}:{run_features.__name__}", {"key": key, "inputs": recorded}),
        verify=stands,
        write=emit,
    )
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


def run_features(context: Context, *, key: str, inputs: object) -> dict[str, object]:
    """The step `features` in a process of its own: the table and how many of its rows were computed."""
    made_of = msgspec.convert(inputs, Inputs)
    snapshots = {name: load_snapshot(context.project, identity) for name, identity in made_of.snapshots.items()}
    return _compute(context, key, read_plan(made_of.plan), snapshots, made_of)


def _compute(
    context: Context, key: str, plan: FeaturePlan, snapshots: Mapping[str, Snapshot], inputs: Inputs
) -> dict[str, object]:
    extension = extend_table(context.project, key, plan, snapshots, inputs)
    if extension is None:
        as_of = None if inputs.as_of is None else datetime.fromisoformat(inputs.as_of)
        rows = scans(context.project, snapshots, inputs.snapshots, as_of=as_of)
        table = store_features(context.project, key, plan, rows, progress=context.progress)
        extension = ExtendedTable(table, table.rows)
    return {"table": msgspec.to_builtins(extension.table), "computed": extension.computed}


def store_features(
    project: Project, key: str, plan: FeaturePlan, frames: Mapping[str, pl.LazyFrame], *, progress: Progress = silent
) -> TableRef:
    """The features of every entity row, as table `key`; in parts, with `progress`, beyond `resources.memory`."""
    from cumulant.features.offline.partitions import compute_within

    engine = project.history()
    if engine is not None:
        from cumulant.features.distributed.history import compute_history

        progress(f"features: computed by {project.endpoints.history}", None)
        return project.tables().write(key, compute_history(plan, frames, engine), protect=protection_of(plan))
    budget = memory_budget(project)
    computed = compute_within(plan, frames, memory=budget.memory, scratch=scratch_folder(project), progress=progress)
    if not isinstance(computed, Iterator) and computed.height:  # as files of which the next table can share some
        computed = computed.iter_slices(_FRAME_ROWS)
    return project.tables().write(key, computed, protect=protection_of(plan))


def protection_of(plan: FeaturePlan) -> Protection:
    """The features of personal columns' values. A table of features has no column of its subject: its rows are those
    of the entity's snapshot, in their order.
    """
    from cumulant.features.definition.personal_features import personal_features

    return Protection(columns=tuple(sorted(personal_features(plan))))


def keyed_features(project: Project, computed: FeatureSet, *, hidden: Collection[str]) -> pl.DataFrame:
    """The feature table with the key and the event time of each entity row, except where a feature has their name.

    Features of `hidden`, and values of personal columns, are keyed hashes.

    Raises:
        StorageError: the table or the snapshot cannot be read.
    """
    from cumulant.data.masking import mask_frame
    from cumulant.data.snapshot import scan

    entity, tables = computed.plan.entity, project.tables()
    snapshot = load_snapshot(project, computed.sources[entity])
    named = [*snapshot.key, *([] if snapshot.event_time is None else [snapshot.event_time])]
    named = [name for name in dict.fromkeys(named) if name not in computed.plan.names]
    rows = scan(snapshot, tables, as_of=computed.as_of).select(ROW, *named)
    frame = tables.scan(computed.table).join(rows, on=ROW, how="left", maintain_order="left").collect()
    personal = [*hidden, *(name for name in named if name in project.policies.source(entity).spec.personal)]
    return mask_frame(frame.select(ROW, *named, *computed.plan.names), personal, project.salt())


def used_sources(plan: FeaturePlan, snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
    """Source name to snapshot id, of the sources that the plan reads."""
    return {name: snapshots[name].id for name in sorted(plan.sources)}


def scans(
    project: Project, snapshots: Mapping[str, Snapshot], names: Mapping[str, str], *, as_of: datetime | None
) -> dict[str, pl.LazyFrame]:
    """The named snapshots as lazy frames for features, as of `as_of`: of corrected and deleted rows every version."""
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


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that a feature table is made of, as the step records it."""

    plan: object
    snapshots: dict[str, str]
    as_of: str | None
    #: the number of the rule for events known at one moment (`order_rule`); tables that do not name it are of the first
    order: int = 1


class ExtendedTable(NamedTuple):
    """A feature table that was made from an earlier one, and how many of its rows were computed."""

    table: TableRef
    computed: int


class _Earlier(NamedTuple):
    table: TableRef
    snapshots: dict[str, str]


def extend_table(
    project: Project, key: str, plan: FeaturePlan, snapshots: Mapping[str, Snapshot], inputs: Inputs
) -> ExtendedTable | None:
    """The features of every entity row, as table `key`, of which an earlier table has those that nothing new changes.

    None without a table of the same definitions whose rows are unchanged and in order, or where computing all rows
    costs less.
    """
    from cumulant.features.offline.incremental import changed_features

    for earlier in islice(_earlier_tables(project, inputs), _TRIED):
        kept_rows = _kept_rows(project, earlier, snapshots)
        if kept_rows is None:
            continue
        as_of = None if inputs.as_of is None else datetime.fromisoformat(inputs.as_of)
        sources = {name: _grown_source(project, snapshots[name], kept_rows[name], as_of) for name in kept_rows}
        changed = changed_features(plan, sources, memory=memory_budget(project).memory)
        if changed is not None:
            return ExtendedTable(
                _with_changes(project, key, earlier.table, kept_rows[plan.entity], changed), changed.height
            )
    return None


def _earlier_tables(project: Project, inputs: Inputs) -> Iterator[_Earlier]:
    """Tables with the same definitions that this version of Cumulant computed, the newest first."""
    done = [read_step(row) for row in project.journal().rows(STEP)]
    done = [step for step in done if step.name == FEATURES and step.result and step.code == __version__]
    plan = canonical(inputs.plan)
    for step in sorted(done, key=lambda step: step.started, reverse=True):
        earlier, result = msgspec.convert(step.inputs, Inputs), step.result or {}
        same = (earlier.as_of, earlier.order) == (
            inputs.as_of,
            inputs.order,
        ) and earlier.snapshots.keys() == inputs.snapshots.keys()
        if same and canonical(earlier.plan) == plan:
            ref = project.tables().find(msgspec.convert(result["table"], TableRef).key)
            if ref is not None:
                yield _Earlier(ref, earlier.snapshots)


def _kept_rows(project: Project, earlier: _Earlier, snapshots: Mapping[str, Snapshot]) -> dict[str, Kept] | None:
    """Where the rows of each source are now; None where more than additions changed, or stored parts are unusable."""
    tables, by_source = project.tables(), {}
    try:
        from cumulant.data.parts.added_rows import find_shared_rows

        for name, identity in earlier.snapshots.items():
            rows = find_shared_rows(load_snapshot(project, identity), snapshots[name], tables)
            if rows is None:
                return None
            by_source[name] = rows
        tables.check(earlier.table)
    except (NotFoundError, StorageError):
        return None
    return by_source


def _grown_source(project: Project, snapshot: Snapshot, kept_rows: Kept, as_of: datetime | None) -> GrownSource:
    from cumulant.data.parts.added_rows import count_added, scan_added
    from cumulant.data.snapshot import scan
    from cumulant.features.offline.incremental import GrownSource

    tables = project.tables()
    return GrownSource(
        every=scan(snapshot, tables, as_of=as_of),
        new=scan_added(snapshot, kept_rows, tables, as_of=as_of),
        added=count_added(snapshot, kept_rows),
    )


def _with_changes(project: Project, key: str, earlier: TableRef, kept_rows: Kept, changed: pl.DataFrame) -> TableRef:
    """The earlier table with the changed rows, as table `key`; the rows before the first change are its head."""
    import polars as pl

    from cumulant.features.offline.incremental import unchanged_rows, with_changes

    tables, position = project.tables(), unchanged_rows(kept_rows, changed)
    rows = tables.scan(earlier)
    before = rows.select((pl.col(ROW) < position).sum()).collect().item()
    blocks = with_changes(rows.slice(before), kept_rows, changed)
    return tables.write(key, blocks, head=TableHead(earlier.key, before), protect=tables.protection(earlier))

"""Reuse of an earlier feature table: only the rows that new data changes are computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import NotFoundError, StorageError
from cumulant.core.ids import canonical
from cumulant.core.refs import TableRef
from cumulant.core.version import __version__
from cumulant.data.row_columns import ROW
from cumulant.flows.data.memory_budget import room_of
from cumulant.flows.data.validate import load_snapshot
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.ports.tables import TableHead

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.data.parts.added_rows import SharedRows
    from cumulant.data.snapshot import Snapshot
    from cumulant.features.offline.incremental import GrownSource
    from cumulant.project.project import Project

Kept = tuple["SharedRows", ...]
FEATURES = "features"
#: so many earlier tables are tried, the newest first
_TRIED = 3


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that a feature table is made of, as the step records it."""

    plan: object
    snapshots: dict[str, str]
    as_of: str | None


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

    None where no table of the same definitions is of snapshots whose rows all stand in the present ones, unchanged and
    in their order, or where computing all rows is the better way.
    """
    from cumulant.features.offline.incremental import changed_features

    for earlier in islice(_earlier_tables(project, inputs), _TRIED):
        kept_rows = _kept_rows(project, earlier, snapshots)
        if kept_rows is None:
            continue
        as_of = None if inputs.as_of is None else datetime.fromisoformat(inputs.as_of)
        sources = {name: _grown_source(project, snapshots[name], kept_rows[name], as_of) for name in kept_rows}
        changed = changed_features(plan, sources, memory=room_of(project).memory)
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
        same = earlier.as_of == inputs.as_of and earlier.snapshots.keys() == inputs.snapshots.keys()
        if same and canonical(earlier.plan) == plan:
            ref = project.tables().find(msgspec.convert(result["table"], TableRef).key)
            if ref is not None:
                yield _Earlier(ref, earlier.snapshots)


def _kept_rows(project: Project, earlier: _Earlier, snapshots: Mapping[str, Snapshot]) -> dict[str, Kept] | None:
    """Where the rows of each source are now; None where one has others than added rows, or where a part of what is
    earlier was removed or damaged, without which all rows can be computed.
    """
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
    return tables.write(key, blocks, head=TableHead(earlier.key, before))

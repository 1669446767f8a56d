"""Online state of a subject: entities whose key it is, and rows that were posted of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.plan import FeaturePlan
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.features.feature_table import deletions, scans
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.serving.serve import ONLINE_STATE, state_table
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, total

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.ports.online import Cells, OnlineStore
    from cumulant.project.project import Project

STORE = "online state"


class _Table(NamedTuple):
    """A filled table, and its plan with hashes in place of personal keys."""

    name: str
    hashed: HashedKeys

    @property
    def plan(self) -> FeaturePlan:
        return self.hashed.plan


def find_state(context: Context, subject: Subject) -> list[SubjectPlace]:
    project = context.project
    tables = _tables(project)
    places = [
        SubjectPlace(store=STORE, where=table.name, rows=rows)
        for table in tables
        if (rows := _stored(project.online(), table, subject))
    ]
    return places + _posted(project, tables, subject)


def erase_state(context: Context, subject: Subject) -> Receipt:
    """Delete what was posted of the subject, and make its entities again from the newest snapshots."""
    project, places = context.project, find_state(context, subject)
    refused = ""
    for table in _tables(project):
        for source, column in _keys(table, subject):
            try:
                _forget(project, table, column, subject)
            except CumulantError as error:
                refused = f"{table.name}, {source}: {project.vault.redact(error.message)}"
    remaining = find_state(context, subject)
    older = f"; {refused}" if refused else ""
    if remaining:
        where = ", ".join(place.where for place in remaining)
        reason = f"left in {where}: fill the state anew (`cumulant features materialize`) and run this again{older}"
        return Receipt(store=STORE, status="pending", rows=total(places), reason=reason)
    reason = "windows by other keys hold values of its rows until the state is filled anew"
    return Receipt(
        store=STORE,
        status="erased" if places else "nothing",
        rows=total(places),
        rewritten=tuple(place.where for place in places),
        reason=reason if places else "",
    )


def _tables(project: Project) -> list[_Table]:
    """The tables of this project that are there, the newest first."""
    records = [read_step(row) for row in project.journal().rows(STEP)]
    filled = sorted((record for record in records if record.name == ONLINE_STATE), key=lambda record: record.started)
    present = set(project.online().tables()) if filled else set[str]()
    tables = {}
    for record in reversed(filled):
        name, inputs = state_table(record.inputs), record.inputs
        if name in present and name not in tables and isinstance(inputs, dict):
            tables[name] = _Table(name, HashedKeys.of(msgspec.convert(inputs["plan"], FeaturePlan), project.salt))
    return list(tables.values())


def _keys(table: _Table, subject: Subject) -> Iterator[tuple[str, str]]:
    """Source and column of the windows and lookups that are by the subject alone."""
    from cumulant.features.offline.groups import groups_of

    by = {(group.source, group.by) for group in groups_of(table.plan)}
    for source, column in subject.columns.items():
        if (source, (column,)) in by:
            yield source, column


def _stored(store: OnlineStore, table: _Table, subject: Subject) -> int:
    """How many events of the subject a table holds."""
    from datetime import UTC, datetime

    from cumulant.features.online.repair import read_key

    events = 0
    for source, column in _keys(table, subject):
        try:
            stored = read_key(
                table.plan,
                store,
                table.name,
                table.hashed.key({column: subject.value}),
                now=datetime.now(UTC),
                newest=0,
            )
        except CumulantError:  # no value of the column's type
            continue
        events += sum(key.events for key in stored if key.source == source)
    return events


def _posted(project: Project, tables: list[_Table], subject: Subject) -> list[SubjectPlace]:
    """The logs of posted rows that hold the subject."""
    from cumulant.features.posted.posted_events import log_table

    logs = {
        log_table(table.hashed.log_scope(project.name), source): source
        for table in tables
        for source in table.plan.sources.keys() & subject.columns.keys()
    }
    present = sorted(logs.keys() & set(project.online().tables())) if logs else []
    return [
        SubjectPlace(store=STORE, where=name, rows=rows)
        for name in present
        if (rows := _count_posted(project.online(), name, subject.columns[logs[name]], subject))
    ]


def _count_posted(store: OnlineStore, name: str, column: str, subject: Subject) -> int:
    from cumulant.features.posted.posted_events import SourceLog

    def count(cells: Cells) -> int:
        log, rows, mark = SourceLog(cells, name), 0, 0
        mark = log.first
        while mark < log.next:
            records, mark = log.since(mark, 10_000)
            rows += sum(str((record.values | record.other).get(column)) in subject.texts for _, record in records)
        return rows

    return store.update(count)


def _forget(project: Project, table: _Table, column: str, subject: Subject) -> None:
    from cumulant.features.online.repair import forget_key

    snapshots = {name: newest_snapshot(project, name) for name in table.plan.sources}
    known = {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}
    frames = scans(project, known, {name: snapshot.id for name, snapshot in known.items()}, as_of=None)
    gone = table.hashed.frames(deletions(project, table.plan, known, as_of=None))
    key = table.hashed.key({column: subject.value})
    forget_key(table.plan, table.hashed.frames(frames), project.online(), table.name, key, deletions=gone)

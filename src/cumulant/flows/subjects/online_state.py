"""Online state of a subject: tables that hold events of its rows, and logs of posted rows.

Its rows enter windows by any columns, such as a shop's total. So an erasure deletes what was posted, and fills each
table that held its rows again, from snapshots without them and from what others posted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.errors import CumulantError, IntegrityError, RequestError
from cumulant.core.plan import FeaturePlan
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.flows.data.erasures import RecordedErasure, read_erasure, write_erasure
from cumulant.flows.data.validate import SNAPSHOT, newest_snapshot
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.serving.serve import ONLINE_STATE, materialize, state_table
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, status_after, total

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.ledger.run_context import Context
    from cumulant.ports.online import Cells, OnlineStore
    from cumulant.project.project import Project

STORE = "online state"
_STEP = 10_000


class _Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the step that filled a table records. `table`: its name, where that is not made of these inputs."""

    plan: FeaturePlan
    snapshots: dict[str, str]
    as_of: datetime | None = None
    since: datetime | None = None
    table: str = ""


class _Table(NamedTuple):
    """A table that was filled: of what, and its plan with hashes in place of personal keys.

    `filled`: when that began; None where it did not end, so that it may be as it was before.
    """

    name: str
    filled: datetime | None
    inputs: _Inputs
    hashed: HashedKeys

    @property
    def plan(self) -> FeaturePlan:
        return self.hashed.plan


def find_state(context: Context, subject: Subject) -> list[SubjectPlace]:
    project = context.project
    places = (_place(project, table, subject) for table in _tables(project, subject))
    return [*(place for place in places if place is not None), *_posted(project, subject)]


def erase_state(context: Context, subject: Subject) -> Receipt:
    """Delete what was posted of the subject, and fill the tables that hold its rows again."""
    project, places, refused = context.project, find_state(context, subject), ""
    holding = {place.where for place in places}
    posted = bool(_delete_posted(context, subject))
    for table in _tables(project, subject):
        if posted or table.name in holding:
            try:
                _fill_again(context, table)
            except CumulantError as error:
                refused = f"{table.name}: {project.vault.redact(error.message)}"
    remaining = find_state(context, subject)
    cause = f"it could not be filled again, {refused}" if refused else "its rows are in snapshots, or were posted since"
    return Receipt(
        store=STORE,
        status="pending" if refused else status_after(places, remaining),
        rows=total(places),
        rewritten=tuple(place.where for place in places),
        reason=f"run this again: {cause}" if refused or remaining else "",
    )


def _tables(project: Project, subject: Subject) -> list[_Table]:
    """The tables of this project that are there and have windows or lookups over rows of subjects, the newest first."""
    records = [read_step(row) for row in project.journal().rows(STEP)]
    filled = sorted((record for record in records if record.name == ONLINE_STATE), key=lambda record: record.started)
    present = set(project.online().tables()) if filled else set[str]()
    tables = dict[str, _Table]()
    for record in reversed(filled):
        inputs = msgspec.convert(record.inputs, _Inputs)
        name = inputs.table or state_table(record.inputs)
        if name in present and name not in tables:
            ended = None if record.result is None else record.started
            tables[name] = _Table(name, ended, inputs, HashedKeys.of(inputs.plan, project.salt))
    return [table for table in tables.values() if _sources(table, subject)]


def _sources(table: _Table, subject: Subject) -> set[str]:
    """The sources with subjects whose rows are in the table."""
    from cumulant.features.offline.groups import groups_of

    return {group.source for group in groups_of(table.plan)} & subject.columns.keys()


def _place(project: Project, table: _Table, subject: Subject) -> SubjectPlace | None:
    """A table, where it holds or may hold the subject, and how many events: where its windows are by the subject
    alone, those that are stored; elsewhere the rows of the snapshots that it was filled from.
    """
    by_key = dict(_keys(table, subject))
    try:
        rows = _stored(project.online(), table, subject, by_key)
    except IntegrityError:  # what is stored of the subject cannot be read: it is filled again
        return SubjectPlace(store=STORE, where=table.name, rows=0)
    others = _sources(table, subject) - by_key.keys()
    rows += sum(_snapshot_rows(project, table, source, subject) for source in others)
    if not rows and not _is_older(project, table, subject):
        return None
    return SubjectPlace(store=STORE, where=table.name, rows=rows)


def _snapshot_rows(project: Project, table: _Table, source: str, subject: Subject) -> int:
    from cumulant.data.snapshot import scan_versions
    from cumulant.flows.subjects.snapshots import count_rows

    snapshot = _snapshot(project, table, source)
    if snapshot is None:
        return 0
    return count_rows(scan_versions(snapshot, project.tables()), subject.columns[source], subject)


def _snapshot(project: Project, table: _Table, source: str) -> Snapshot | None:
    """The snapshot that a table was filled from, as long as its rows are stored."""
    from cumulant.data.snapshot import Snapshot

    row = project.journal().get(SNAPSHOT, table.inputs.snapshots[source])
    if row is None:
        return None
    snapshot = msgspec.convert(row.value, Snapshot)
    present = set(project.tables().keys(f"data/{source}/"))
    return snapshot if all(part.key in present for part in snapshot.parts) else None


def _is_older(project: Project, table: _Table, subject: Subject) -> bool:
    """Whether a table may be as it was before an erasure: of a snapshot that is gone, or of deleted posted rows."""
    for source in _sources(table, subject):
        erasure = read_erasure(project.journal(), source, subject.hash)
        deleted = None if erasure is None else erasure.posted_rows_deleted
        if deleted is not None and (table.filled is None or table.filled < deleted):
            return True
        if _snapshot(project, table, source) is None:
            return True
    return False


def _keys(table: _Table, subject: Subject) -> Iterator[tuple[str, str]]:
    """Source and column of the windows and lookups that are by the subject alone."""
    from cumulant.features.offline.groups import groups_of

    by = {(group.source, group.by) for group in groups_of(table.plan)}
    for source, column in subject.columns.items():
        if (source, (column,)) in by:
            yield source, column


def _stored(store: OnlineStore, table: _Table, subject: Subject, keys: Mapping[str, str]) -> int:
    """How many events of the subject a table holds under keys that are the subject alone."""
    from datetime import UTC

    from cumulant.features.online.repair import read_key

    events = 0
    for source, column in keys.items():
        try:
            stored = read_key(
                table.plan,
                store,
                table.name,
                table.hashed.key({column: subject.value}),
                now=datetime.now(UTC),
                newest=0,
            )
        except RequestError:  # no value of the column's type
            continue
        events += sum(key.events for key in stored if key.source == source)
    return events


def _posted(project: Project, subject: Subject) -> list[SubjectPlace]:
    """The logs of posted rows that hold the subject."""
    return [
        SubjectPlace(store=STORE, where=name, rows=len(keys))
        for name, column in _logs(project, subject)
        if (keys := project.online().update(partial(_rows, name=name, column=column, subject=subject)))
    ]


def _logs(project: Project, subject: Subject) -> list[tuple[str, str]]:
    """Each log of posted rows of sources with subjects, of every scope, and the subject's column."""
    from cumulant.features.posted.posted_events import is_log_of

    present = project.online().tables()
    return [(name, column) for source, column in subject.columns.items() for name in present if is_log_of(name, source)]


def _rows(cells: Cells, name: str, column: str, subject: Subject) -> list[bytes]:
    """The keys of the log's rows that are the subject's."""
    from cumulant.features.posted.posted_events import SourceLog

    log = SourceLog(cells, name)
    keys, mark = dict[bytes, None](), log.first
    while mark < log.next:
        records, mark = log.since(mark, _STEP)
        keys |= {key: None for key, row in records if str((row.values | row.other).get(column)) in subject.texts}
    return list(keys)


def _delete_posted(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Delete the posted rows of the subject; where they were."""
    store, places = context.project.online(), _posted(context.project, subject)

    def delete(cells: Cells, name: str, column: str) -> None:
        from cumulant.features.posted.posted_events import SourceLog

        log, keys = SourceLog(cells, name), _rows(cells, name, column, subject)
        log.load(keys)
        log.forget(keys, log.first)
        log.save()

    if places:
        _mark_deleted(context, subject)
    names = {place.where for place in places}
    for name, column in _logs(context.project, subject):
        if name in names:
            store.update(partial(delete, name=name, column=column))
    return places


def _mark_deleted(context: Context, subject: Subject) -> None:
    """Note that tables must be filled again, whenever this process ends."""
    with context.transaction() as transaction:
        for source in subject.columns:
            now = context.now()
            erasure = read_erasure(transaction, source, subject.hash) or RecordedErasure(at=now)
            marked = msgspec.structs.replace(erasure, posted_rows_deleted=now)
            write_erasure(transaction, source, subject.hash, marked)


def _fill_again(context: Context, table: _Table) -> None:
    inputs, known = table.inputs, {name: newest_snapshot(context.project, name) for name in table.inputs.plan.sources}
    snapshots = {name: snapshot for name, snapshot in known.items() if snapshot is not None}
    materialize(context, inputs.plan, snapshots, as_of=inputs.as_of, since=inputs.since, into=table.name, anew=True)

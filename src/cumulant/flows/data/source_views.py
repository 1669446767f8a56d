"""Sources for readers: what each snapshot took in and refused, changes of columns, and quarantine by rule and day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.core.errors import not_found
from cumulant.core.structs import struct_from
from cumulant.data.events import SchemaChanged, SnapshotAccepted, SnapshotRefused
from cumulant.data.row_columns import FILE, ROW, RULE
from cumulant.data.snapshot import Snapshot
from cumulant.flows.data.validate import NEWEST, REFUSED, newest_snapshot, refused_snapshot
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.row_cache import RowCache

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Row
    from cumulant.project.project import Project

#: snapshots and changes of a source that are shown, and days and rules of a quarantine
_SNAPSHOTS, _DAYS, _RULES = 60, 60, 30


class SnapshotLine(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as it was accepted or refused (`breaches`: why)."""

    source: str
    snapshot: str
    at: datetime
    rows_in: int
    rows_passed: int
    rows_quarantined: int
    rows_dropped: int
    accepted: bool
    breaches: tuple[str, ...] = ()


class ColumnChange(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of a column against the snapshot before."""

    at: datetime
    snapshot: str
    change: str
    column: str
    before: str | None
    to: str | None
    refused: bool


class DeclaredSource(msgspec.Struct, frozen=True, kw_only=True):
    """A declared source with its snapshot in force, None where nothing was accepted yet.

    `broken`: rules that the source as a whole breaks, and warnings; `refused`: a newer snapshot that was refused.
    """

    name: str
    path: str
    snapshot: SnapshotLine | None
    broken: int
    refused: SnapshotLine | None


class _ListedSnapshot(NamedTuple):
    line: SnapshotLine
    warnings: int


class SourceCaches(NamedTuple):
    """Snapshots in force, and refused ones, in memory."""

    newest: RowCache[_ListedSnapshot]
    refused: RowCache[_ListedSnapshot]


def source_caches() -> SourceCaches:
    return SourceCaches(RowCache(NEWEST, _listed), RowCache(REFUSED, _listed))


class SourceDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A source: its snapshot in force and the refused one whole, and its history, the newest first."""

    name: str
    newest: Snapshot | None
    refused: Snapshot | None
    history: tuple[SnapshotLine, ...]
    changes: tuple[ColumnChange, ...]


class QuarantineCell(msgspec.Struct, frozen=True):
    """Refused rows of one rule on one day; without a day where the row has no readable time."""

    rule: str
    day: str
    rows: int


class QuarantinedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A refused row: its place, its values as text (personal ones hashed), and the columns that the rule is about."""

    rule: str
    file: str
    row: int | None
    values: dict[str, str | None]
    bad: tuple[str, ...]


class QuarantineView(msgspec.Struct, frozen=True, kw_only=True):
    """Refused rows of the refused snapshot, where there is one, else of the one in force.

    `total`: of all refused rows; `matching`: those of the chosen rule and day. A row that breaks several rules counts
    under the first one.
    """

    source: str
    snapshot: str
    of_refused: bool
    total: int
    matching: int
    cells: tuple[QuarantineCell, ...]
    rules: tuple[str, ...]
    days: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[QuarantinedRow, ...]
    after: int | None


@verb("data.show")
def list_sources(project: Project, *, principal: Principal, caches: SourceCaches | None = None) -> list[DeclaredSource]:
    """The declared sources in their order, with the newest figures. `caches`: what a server remembers of snapshots."""
    newest, refused = (cache.rows(project.journal()) for cache in caches or source_caches())
    return [_source_line(project, name, newest.get(name), refused.get(name)) for name in project.policies.sources]


@verb("data.show")
def show_source(project: Project, name: str, *, principal: Principal) -> SourceDetail:
    """A source with its snapshots and the changes of its columns. Raises NotFoundError."""
    _check_name(project, name)
    changes = (
        _change(event) for event in project.journal().events(kinds=[SchemaChanged.kind]) if event.data["source"] == name
    )
    lines = [line for line in _history(project) if line.source == name]
    return SourceDetail(
        name=name,
        newest=newest_snapshot(project, name),
        refused=refused_snapshot(project, name),
        history=tuple(reversed(lines[-_SNAPSHOTS:])),
        changes=tuple(reversed([*changes][-_SNAPSHOTS:])),
    )


@verb("data.quarantine", personal=True)
def quarantine_view(
    project: Project,
    name: str,
    *,
    principal: Principal,
    rule: str = "",
    day: str = "",
    after: int = 0,
    limit: int = 50,
) -> QuarantineView | None:
    """Refused rows of a source by rule and day, and a page of those of a chosen rule and day; None without a snapshot.

    Personal values are keyed hashes. Raises NotFoundError.
    """
    _check_name(project, name)
    refused = refused_snapshot(project, name)
    snapshot = refused or newest_snapshot(project, name)
    if snapshot is None:
        return None
    page = slice(after, after + limit)
    return _quarantine(project, snapshot, of_refused=refused is not None, chosen=(rule, day), page=page)


def _quarantine(
    project: Project, snapshot: Snapshot, *, of_refused: bool, chosen: tuple[str, str], page: slice
) -> QuarantineView:
    import polars as pl

    from cumulant.data import views

    tables, table = project.tables(), snapshot.quarantine
    if table is None:
        none = pl.DataFrame(schema={RULE: pl.String, views.PLACE: pl.UInt32, views.DAY: pl.String})
        index = views.QuarantineIndex(none, tuple(field.name for field in snapshot.fields), divided=False)
    else:
        index = views.index_quarantine(snapshot, table, tables)
    rows = index.rows
    cells = [QuarantineCell(*cell) for cell in rows.group_by(RULE, views.DAY).len().sort(RULE, views.DAY).rows()]
    rule, day = chosen
    if rule:
        rows = rows.filter(pl.col(RULE) == rule)
    if day:
        rows = rows.filter(pl.col(views.DAY) == day)
    places = rows[page][views.PLACE].to_list()
    shown = pl.DataFrame()
    if table is not None and places:
        shown = views.read_refused(snapshot, table, tables, project.salt(), places, divided=index.divided)
    names = tuple(column for column in index.columns if not column.startswith("__"))
    marks = _bad_columns(snapshot)
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.rule] = counts.get(cell.rule, 0) + cell.rows
    return QuarantineView(
        source=snapshot.source,
        snapshot=snapshot.id,
        of_refused=of_refused,
        total=sum(cell.rows for cell in cells),
        matching=rows.height,
        cells=tuple(cells),
        rules=tuple(sorted(counts, key=lambda rule: (-counts[rule], rule))[:_RULES]),
        days=tuple(sorted({cell.day for cell in cells if cell.day})[-_DAYS:]),
        columns=names,
        rows=tuple(_quarantined(row, names, marks) for row in shown.iter_rows(named=True)),
        after=page.stop if page.stop < rows.height else None,
    )


def _bad_columns(snapshot: Snapshot) -> Mapping[str, tuple[str, ...]]:
    """The columns that each rule is about."""
    named = {check.rule: (check.column,) for check in snapshot.checks if check.column is not None}
    return {check.rule: snapshot.key for check in snapshot.checks if check.column is None} | named


def _quarantined(row: Mapping[str, Any], names: Sequence[str], marks: Mapping[str, tuple[str, ...]]) -> QuarantinedRow:
    rule = str(row[RULE])
    bad = marks.get(rule) or (rule.partition(":")[0],)
    return QuarantinedRow(
        rule=rule,
        file=str(row[FILE]),
        row=row[ROW],
        values={name: None if row[name] is None else str(row[name]) for name in names},
        bad=tuple(name for name in bad if name in names),
    )


def _check_name(project: Project, name: str) -> None:
    if name not in project.policies.sources:
        raise not_found("source", name, project.policies.sources)


def _source_line(
    project: Project, name: str, newest: _ListedSnapshot | None, refused: _ListedSnapshot | None
) -> DeclaredSource:
    return DeclaredSource(
        name=name,
        path=_place(project, name),
        snapshot=None if newest is None else newest.line,
        broken=0 if newest is None else newest.warnings,
        refused=None if refused is None else refused.line,
    )


def _place(project: Project, name: str) -> str:
    """The path of a source's files, or its stream."""
    spec = project.policies.sources[name].spec
    return f"stream:{spec.stream}" if spec.stream else spec.path or project.policies.source(name).spec.path


def _listed(row: Row) -> _ListedSnapshot:
    from cumulant.data.checks.verdict import warnings_of

    snapshot = msgspec.convert(row.value, Snapshot)
    return _ListedSnapshot(_line_of(snapshot, accepted=row.kind == NEWEST), len(warnings_of(snapshot)))


def _line_of(snapshot: Snapshot, *, accepted: bool = True) -> SnapshotLine:
    return struct_from(
        SnapshotLine,
        snapshot,
        snapshot=snapshot.id,
        at=snapshot.accepted,
        accepted=accepted,
        breaches=() if accepted else snapshot.breaches,
    )


def _history(project: Project) -> Iterator[SnapshotLine]:
    """All snapshots that were accepted or refused, in order."""
    for event in project.journal().events(kinds=[SnapshotAccepted.kind, SnapshotRefused.kind]):
        yield msgspec.convert(
            {**event.data, "at": event.time, "accepted": event.kind == SnapshotAccepted.kind},
            SnapshotLine,
            strict=False,
        )


def _change(event: Event) -> ColumnChange:
    return msgspec.convert({**event.data, "at": event.time}, ColumnChange, strict=False)

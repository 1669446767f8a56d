"""Sources: their snapshots, rows, changes of columns, and quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.data.snapshot import Snapshot
from cumulant.data.views import preview_rows, read_quarantine
from cumulant.flows.data.source_views import QuarantineView, SourceDetail, quarantine_view, show_source
from cumulant.flows.data.validate import newest_snapshot, refused_snapshot, required_snapshot, validate
from cumulant.server.operation import ApiCall, PageQuery, get, post
from cumulant.server.pages import bad_cursor, check_limit, decode_cursor, encode_cursor

if TYPE_CHECKING:
    import polars as pl


#: rows of a quarantine, above any that is stored
_MOST_ROWS = 1 << 40


class SourceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A source with its newest accepted snapshot; `refused`: one that was refused since."""

    name: str
    snapshot: str | None
    refused: str | None
    rows_in: int = 0
    rows_passed: int = 0
    rows_quarantined: int = 0


class DataRows(msgspec.Struct, frozen=True):
    """Rows of a source, by column; personal values are keyed hashes."""

    columns: list[str]
    rows: list[dict[str, Any]]


class RowQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: int = 20


@get("/data", action="data.show")
def list_(call: ApiCall) -> list[SourceSummary]:
    """List the sources with their newest snapshots."""
    call.check()
    return [_summary(call, name) for name in call.project.policies.sources]


@get("/data/{source}", action="data.show")
def show(call: ApiCall, source: str) -> Snapshot:
    """Show the newest accepted snapshot of a source: columns, figures, checks."""
    call.check()
    return _stored(call, source)


@get("/data/{source}/rows", action="data.show")
def rows(call: ApiCall, source: str, query: RowQuery) -> DataRows:
    """Show the first accepted rows of a source."""
    call.check(personal=True)
    snapshot = _stored(call, source)
    project = call.project
    return _rows(preview_rows(snapshot, project.tables(), project.salt(), rows=check_limit(query.limit)))


@get("/data/{source}/quarantine", action="data.quarantine")
def quarantine(call: ApiCall, source: str, query: RowQuery) -> DataRows:
    """Show refused rows with the rule that refused each: of the last refused snapshot, else of the newest one."""
    call.check(personal=True)
    snapshot = _stored(call, source, refused=True)
    limit = check_limit(query.limit)
    return _rows(read_quarantine(snapshot, call.project.tables(), call.project.salt(), limit=limit).head(limit))


class QuarantineQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rule` and `day` (such as 2026-03-12): rows of these alone."""

    rule: str = ""
    day: str = ""


class QuarantinePage(msgspec.Struct, frozen=True, kw_only=True):
    """`view`: null where the source was not read yet; `next` continues its rows."""

    view: QuarantineView | None
    next: str | None


@get("/data/{source}/quarantine/cells", action="data.quarantine")
def quarantine_cells(call: ApiCall, source: str, query: QuarantineQuery) -> QuarantinePage:
    """Count refused rows by rule and day, and list those of a chosen rule and day; personal values are keyed hashes."""
    view = quarantine_view(
        call.project,
        source,
        principal=call.principal,
        rule=query.rule,
        day=query.day,
        after=_place(query.cursor),
        limit=check_limit(query.limit),
    )
    after = None if view is None else view.after
    return QuarantinePage(view=view, next=None if after is None else encode_cursor((after,)))


def _place(cursor: str) -> int:
    match decode_cursor(cursor):
        case None:
            return 0
        case (int(place),) if 0 <= place < _MOST_ROWS:
            return place
        case _:
            raise bad_cursor()


@get("/data/{source}/history", action="data.show")
def history(call: ApiCall, source: str) -> SourceDetail:
    """Show a source with its snapshots and the changes of its columns, the newest first."""
    return show_source(call.project, source, principal=call.principal)


class ValidateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sources`: names; empty: all. `force`: compare contents, not sizes and times."""

    sources: list[str] = []
    force: bool = False


class ValidatedSources(msgspec.Struct, frozen=True, kw_only=True):
    """`unchanged`: names of sources that had nothing new."""

    run: str
    unchanged: tuple[str, ...]
    sources: list[SourceSummary]


@post("/validate", action="data.validate", long=True)
def validate_(call: ApiCall, body: ValidateBody) -> ValidatedSources:
    """Read what is new of the sources, check it, and store snapshots."""
    validated = validate(
        call.project, principal=call.principal, sources=body.sources, force=body.force, progress=call.progress
    )
    return ValidatedSources(
        run=validated.run, unchanged=validated.reused, sources=[_summary(call, name) for name in validated.snapshots]
    )


def _summary(call: ApiCall, name: str) -> SourceSummary:
    snapshot, refused = newest_snapshot(call.project, name), refused_snapshot(call.project, name)
    return SourceSummary(
        name=name,
        snapshot=None if snapshot is None else snapshot.id,
        refused=None if refused is None else refused.id,
        rows_in=0 if snapshot is None else snapshot.rows_in,
        rows_passed=0 if snapshot is None else snapshot.rows_passed,
        rows_quarantined=0 if snapshot is None else snapshot.rows_quarantined,
    )


def _stored(call: ApiCall, source: str, *, refused: bool = False) -> Snapshot:
    return required_snapshot(call.project, source, hint="POST .../validate makes one", refused=refused)


def _rows(frame: pl.DataFrame) -> DataRows:
    return DataRows(frame.columns, frame.to_dicts())


OPERATIONS = (list_, show, rows, quarantine, quarantine_cells, history, validate_)

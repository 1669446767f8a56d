"""Sources: their snapshots, rows, changes of columns, and quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import NotFoundError, did_you_mean
from cumulant.data.snapshot import Snapshot
from cumulant.data.views import count_refused, preview_rows, read_quarantine
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


class RefusedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Refused rows of a snapshot, by column; `total`: how many there are of the file, or of all that were read;
    `rules`: how many of them each rule refused, most first. A row that breaks several counts under the first one.
    Earlier servers answer without them.
    """

    rows_in: int
    total: int
    rules: dict[str, int] = {}
    columns: list[str]
    rows: list[dict[str, Any]]


class RefusedQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`file`: rows of one file alone: its path, or the end of it."""

    limit: int = 20
    file: str = ""


@get("/data/{source}/quarantine", action="data.quarantine")
def quarantine(call: ApiCall, source: str, query: RefusedQuery) -> RefusedRows:
    """Show refused rows with the rule that refused each: of the last refused snapshot, else of the newest one."""
    call.check(personal=True)
    snapshot = _stored(call, source, refused=True)
    limit, files = check_limit(query.limit), files_named(query.file, snapshot) if query.file else None
    tables, salt = call.project.tables(), call.project.salt()
    frame = read_quarantine(snapshot, tables, salt, limit=None if query.file else limit, files=files)
    shown = frame.head(limit)
    return RefusedRows(
        rows_in=snapshot.rows_in,
        total=frame.height if query.file else snapshot.rows_quarantined,
        rules=count_refused(snapshot, tables, files=files),
        columns=shown.columns,
        rows=shown.to_dicts(),
    )


def files_named(file: str, snapshot: Snapshot) -> list[str]:
    """The files of a snapshot whose path is, or ends with, `file`. Raises NotFoundError where there is none."""
    urls = [item.url for item in snapshot.files]
    matching = [url for url in urls if f"/{url}".endswith(f"/{file.removeprefix('./')}")]
    if not matching:
        hint = did_you_mean(file, urls) or "write the end of its path, as the column __file shows it"
        raise NotFoundError(f'snapshot {snapshot.id[:12]} has no file "{file}"', subject=file, hint=hint)
    return matching


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
    """The accepted snapshots by source; `reused`: names of sources that had nothing new."""

    run: str
    snapshots: dict[str, Snapshot]
    reused: tuple[str, ...]


@post("/validate", action="data.validate", long=True)
def validate_(call: ApiCall, body: ValidateBody) -> ValidatedSources:
    """Read what is new of the sources, check it, and store snapshots."""
    validated = validate(
        call.project, principal=call.principal, sources=body.sources, force=body.force, progress=call.progress
    )
    return ValidatedSources(run=validated.run, snapshots=validated.snapshots, reused=validated.reused)


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
    return required_snapshot(call.project, source, hint=call.project.line(f"data validate {source}"), refused=refused)


def _rows(frame: pl.DataFrame) -> DataRows:
    return DataRows(frame.columns, frame.to_dicts())


OPERATIONS = (list_, show, rows, quarantine, quarantine_cells, history, validate_)

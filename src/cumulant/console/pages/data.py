"""Data: sources with their snapshots and contracts, refused rows with the bad cell marked, and features."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.json import encode

from cumulant.console.charts import Chart, csv_response, numbered
from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.security import security_headers
from cumulant.console.texts import plain
from cumulant.core.errors import CumulantError, UsageError
from cumulant.data.snapshot import Snapshot
from cumulant.data.views import count_refused
from cumulant.flows.data.source_views import (
    QuarantineView,
    SnapshotLine,
    SourceDetail,
    list_sources,
    quarantine_view,
    show_source,
)
from cumulant.flows.data.stream_views import stream_progress
from cumulant.flows.features.freshness import show_freshness
from cumulant.flows.features.verification_record import last_verification, later_without_rows
from cumulant.flows.monitoring.monitoring_views import drift
from cumulant.flows.reports.collect import shift_texts
from cumulant.flows.reports.feature_content import feature_content
from cumulant.flows.reports.svg_elements import Child, Drawing, Frame, draw, element

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.flows.features.store_status import StoredSource

_SHOW, _REFUSED = "data.show", "data.quarantine"
_LIST, _ONE = "/projects/{project}/data", "/projects/{project}/data/{source}"
_CARDINAL = 100.0
#: shares of the largest cell from which a cell has the next colour
_SHADES = (0.0, 0.05, 0.2, 0.5)


class HeatRow(NamedTuple):
    """A rule with its refused rows by day: number, colour, and the page of these rows."""

    rule: str
    href: str
    total: int
    cells: Sequence[tuple[int, str, str]]


def data(page: PageRequest) -> Response:
    listed = list_sources(page.project, principal=page.principal, caches=page.memory.sources)
    streams = stream_progress(page.project, principal=page.principal)
    idle = [stream.source for stream in streams if not stream.consumers]
    return page.page(
        "data.html.jinja",
        title=f"Data of {page.project.name}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Data")],
        live=True,
        sources=listed,
        rows=page.site.rows.render(
            "source",
            listed,
            key=encode,
            values=lambda line: {"source": line, "bar": share_bar(line.snapshot) if line.snapshot else None},
            base=page.href("data"),
        ),
        streams=streams,
        idle=idle,
        ingest=_ingest_command(idle, page.project.environment),
    )


def _ingest_command(sources: Sequence[str], environment: str) -> str:
    """What ingests these streams, as a shell takes it."""
    options = [option for source in sources for option in ("--source", source)]
    options += [] if environment == "local" else ["--env", environment]
    return shlex.join(["cumulant", "ingest", "run", *options])


def source(page: PageRequest) -> Response:
    detail = show_source(page.project, page.path("source"), principal=page.principal)
    shown = detail.refused or detail.newest
    return page.page(
        "source.html.jinja",
        title=f"Source {detail.name}",
        crumbs=_crumbs(page, detail.name),
        live=True,
        detail=detail,
        newest=detail.newest,
        refused=detail.refused,
        checks=[] if shown is None else sorted(shown.checks, key=lambda check: (check.passed, -check.failed)),
        counts={} if shown is None else count_refused(shown, page.project.tables()),
        shifts=() if detail.newest is None else shift_texts(detail.newest),
        warnings=_warnings(detail.newest),
        chart=_history_chart(page, detail),
        quarantine_href=page.href("data", detail.name, "quarantine"),
    )


def quarantine(page: PageRequest) -> Response:
    name = page.path("source")
    view = _view(page, name)
    rule, day = page.query("rule"), page.query("day")
    own = {key: text for key, text in (("rule", rule), ("day", day)) if text}
    return page.page(
        "quarantine.html.jinja",
        title=f"Quarantine of {name}",
        crumbs=[*_crumbs(page, name)[:-1], Crumb(name, page.href("data", name)), Crumb("quarantine")],
        name=name,
        view=view,
        heat=() if view is None else heat_rows(view, page),
        rule=rule,
        day=day,
        older=page.href("data", name, "quarantine", **own, after=str(view.after)) if view and view.after else "",
        newest=page.href("data", name, "quarantine", **own) if page.query("after") else "",
        base=page.href("data", name, "quarantine"),
        csv=page.href("data", name, "quarantine.csv"),
        plain=plain,
    )


def quarantine_file(page: PageRequest) -> Response:
    """Refused rows by rule and day."""
    name = page.path("source")
    view = quarantine_view(page.project, name, principal=page.principal, limit=0)
    cells = () if view is None else view.cells
    rows = [(cell.rule, cell.day, cell.rows) for cell in cells]
    return csv_response(f"quarantine-{name}", ["rule", "day", "rows"], rows, security_headers(page.nonce))


def history_file(page: PageRequest) -> Response:
    """The snapshots of a source."""
    name = page.path("source")
    detail = show_source(page.project, name, principal=page.principal)
    return csv_response(f"snapshots-{name}", _HISTORY, _history_rows(detail), security_headers(page.nonce))


def features(page: PageRequest) -> Response:
    content = feature_content(page.project, principal=page.principal)
    listed = () if content is None else sorted(content.features, key=lambda each: -(each.importance or 0.0))
    stored, unread = _stored_sources(page) if content is not None else ((), "")
    return page.page(
        "features.html.jinja",
        title=f"Features of {page.project.name}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Features")],
        live=True,
        content=content,
        features=listed,
        stored=stored,
        unread=unread,
        verification=last_verification(page.project.journal(), page.project.name),
        without_rows=later_without_rows(page.project.journal(), page.project.name),
        skews={} if content is None else _skews(page, content.version.version),
        version_href="" if content is None else page.href("models", content.version.name, content.version.version),
    )


def _stored_sources(page: PageRequest) -> tuple[Sequence[StoredSource], str]:
    """How fresh the stored events of each source are, and why that cannot be read."""
    if not page.may("features.status"):
        return (), ""
    try:
        return show_freshness(page.project, principal=page.principal).sources, ""
    except CumulantError as error:  # the online store does not answer; the rest of the page needs it not
        return (), page.project.vault.redact(error.message)


class FeatureSkew(NamedTuple):
    """How a served feature differs from the training's in the newest window that has an effect.

    `effect`: in terms of the least that matters, None where no window has enough rows; `missing`: shares in the
    reference and served.
    """

    effect: float | None
    confirmed: bool
    missing: tuple[float, float]
    href: str


def _skews(page: PageRequest, version: str) -> dict[str, FeatureSkew]:
    """By feature, from the last comparison of the version's served rows; empty where there is none."""
    history = drift(page.project, principal=page.principal) if page.may("monitor.show") else None
    if history is None or history.version != version:
        return {}
    return {
        column.feature: FeatureSkew(
            next((effect for effect in reversed(column.effects) if effect is not None), None),
            bool(column.confirmed) and column.confirmed[-1] == len(column.effects) - 1,
            column.missing,
            f"{page.href('monitoring', feature=column.feature)}#column",
        )
        for column in history.columns
        if column.role == "feature"
    }


def _view(page: PageRequest, name: str) -> QuarantineView | None:
    text = page.query("after", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError("the cursor is none of this list", subject="after", hint="open the list from its beginning")
    return quarantine_view(
        page.project, name, principal=page.principal, rule=page.query("rule"), day=page.query("day"), after=int(text)
    )


def heat_rows(view: QuarantineView, page: PageRequest) -> list[HeatRow]:
    """The rules with most refused rows, by day; the last cell is of rows without a day."""
    days = [*view.days, *([""] if any(not cell.day for cell in view.cells) else [])]
    counts = {(cell.rule, cell.day): cell.rows for cell in view.cells}
    most = max(counts.values(), default=1)
    rows = []
    for rule in view.rules:
        cells = []
        for day in days:
            number = counts.get((rule, day), 0)
            query = {"rule": rule, **({"day": day} if day else {})}
            cells.append((number, _shade(number, most), page.href("data", view.source, "quarantine", **query)))
        total = sum(count for (name, _), count in counts.items() if name == rule)
        rows.append(HeatRow(rule, page.href("data", view.source, "quarantine", rule=rule), total, cells))
    return rows


def _shade(number: int, most: int) -> str:
    return f"heat{sum(number / most > limit for limit in _SHADES)}" if number else "none"


def share_bar(line: SnapshotLine) -> Drawing:
    """Passed, quarantined and dropped rows as parts of one bar."""
    total = line.rows_in or 1
    parts: list[Child] = []
    at = 0.0
    for name, rows in (
        ("passed", line.rows_passed),
        ("quarantined", line.rows_quarantined),
        ("dropped", line.rows_dropped),
    ):
        width = max(rows / total * _CARDINAL, 1.0) if rows else 0.0
        if width:
            note = element("title", f"{rows:,} {name}")
            parts.append(element("rect", note, x=round(at, 2), y=0, width=round(width, 2), height=6, class_=name))
        at += width
    text = f"{line.rows_passed:,} of {line.rows_in:,} rows passed"
    return draw(text, *parts, width=_CARDINAL + 2, height=6)


_HISTORY = ("at", "snapshot", "rows in", "passed", "quarantined", "dropped", "accepted")


def _history_rows(detail: SourceDetail) -> list[tuple[str | int, ...]]:
    return [
        (
            f"{line.at:%Y-%m-%d %H:%M:%S}Z",
            line.snapshot[:12],
            line.rows_in,
            line.rows_passed,
            line.rows_quarantined,
            line.rows_dropped,
            "yes" if line.accepted else "no",
        )
        for line in detail.history
    ]


def _history_chart(page: PageRequest, detail: SourceDetail) -> Chart | None:
    """Refused rows of each snapshot, as a share of its rows; None with less than two, or where no row was refused."""
    lines = list(reversed(detail.history))
    if len(lines) < 2 or not any(line.rows_quarantined for line in lines):
        return None
    shares = [line.rows_quarantined / (line.rows_in or 1) for line in lines]
    frame = Frame((-0.5, len(lines) - 0.5), (0.0, 1.1 * max(shares)))
    dots = [
        frame.dot(
            place,
            share,
            4,
            "dot" if line.accepted else "dot alarm",
            f"{line.at:%Y-%m-%d %H:%M}: {line.rows_quarantined:,} of {line.rows_in:,} rows refused",
        )
        for place, (line, share) in enumerate(zip(lines, shares, strict=True))
    ]
    drawing = draw(
        f"Share of refused rows in {len(lines)} snapshots",
        frame.axes("snapshot", "share refused", whole_x=True),
        frame.line(list(enumerate(shares)), "model"),
        *dots,
    )
    link = page.href("data", detail.name, "snapshots.csv")
    legend = [("model", "accepted snapshot"), ("alarm", "refused snapshot")]
    return Chart("Refused rows by snapshot", drawing, numbered(*_HISTORY), _history_rows(detail), link, legend=legend)


def _warnings(snapshot: Snapshot | None) -> tuple[str, ...]:
    from cumulant.data.checks.verdict import warnings_of

    return () if snapshot is None else tuple(warnings_of(snapshot))


def _crumbs(page: PageRequest, name: str) -> list[Crumb]:
    return [Crumb(page.project.name, page.href()), Crumb("Data", page.href("data")), Crumb(name)]


ROUTES = (
    PageRoute(_LIST, data, _SHOW, nav=Nav("Data", "d")),
    PageRoute(_ONE, source, _SHOW),
    PageRoute(f"{_ONE}/snapshots.csv", history_file, _SHOW),
    PageRoute(f"{_ONE}/quarantine", quarantine, _REFUSED),
    PageRoute(f"{_ONE}/quarantine.csv", quarantine_file, _REFUSED),
    PageRoute("/projects/{project}/features", features, "features.show", nav=Nav("Features", "f")),
)

"""Runs: the list, and one run with its steps, its error and its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.json import encode

from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.texts import plain
from cumulant.flows.ledger.ledger_records import RunRecord
from cumulant.flows.ledger.run_views import RunStep, run_detail, run_page
from cumulant.flows.reports.svg_elements import Child, Drawing, draw, element

if TYPE_CHECKING:
    from starlette.responses import Response

_SHOW = "runs.show"
_LIST, _ONE = "/projects/{project}/runs", "/projects/{project}/runs/{run}"
STATUSES = ("running", "done", "failed", "refused", "interrupted", "lost")
_BAD = frozenset({"failed", "refused", "lost"})
_BAR, _ROW, _LABEL = 420.0, 22.0, 170.0


class RunLine(NamedTuple):
    run: RunRecord
    tone: str
    reused: int
    error: str


def runs(page: PageRequest) -> Response:
    flow, status = page.query("flow"), page.query("status")
    listed = run_page(
        page.project,
        principal=page.principal,
        flow=flow,
        status=status,
        after=page.query("after"),
        limit=50,
        cache=page.memory.runs,
    )
    own = {name: text for name, text in (("flow", flow), ("status", status)) if text}
    return page.page(
        "runs.html.jinja",
        title=f"Runs of {page.project.name}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Runs")],
        live=not page.query("after"),
        listed=listed,
        rows=page.site.rows.render(
            "run", listed.runs, key=encode, values=lambda run: {"line": _line(run)}, base=page.href("runs")
        ),
        flow=flow,
        state=status,
        states=STATUSES,
        older=page.href("runs", **own, after=listed.after) if listed.after else "",
        newest=page.href("runs", **own) if page.query("after") else "",
        base=page.href("runs"),
    )


def _line(record: RunRecord) -> RunLine:
    return RunLine(record, tone(record), sum(use.reused for use in record.steps), _error(record))


def run(page: PageRequest) -> Response:
    detail = run_detail(page.project, page.path("run"), principal=page.principal)
    record = detail.run
    error = record.error or {}
    return page.page(
        "run.html.jinja",
        title=f"Run {record.id}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Runs", page.href("runs")), Crumb(record.id)],
        live=record.status == "running",
        detail=detail,
        record=record,
        tone=tone(record),
        error=error,
        settings={name: plain(value) for name, value in record.settings.items() if value not in (None, "", [], {})},
        drawing=step_bars(detail.steps) if any(step.seconds for step in detail.steps) else None,
        results=[(step, text) for step in detail.steps if (text := _result(step))],
        events_href=page.href("events", run=record.id),
        href=lambda name: page.href("runs", name),
    )


def tone(record: RunRecord) -> str:
    """How the state of a run reads at a glance."""
    if record.status in _BAD or record.verdict == "refused":
        return "bad"
    return {"done": "good", "running": "unsure"}.get(record.status, "")


def step_bars(steps: tuple[RunStep, ...]) -> Drawing:
    """One bar a step that was done in the run, as long as it took."""
    done = [step for step in steps if not step.reused and step.seconds > 0]
    longest = max((step.seconds for step in done), default=1.0)
    parts: list[Child] = []
    for place, step in enumerate(done):
        y = place * _ROW
        width = max(step.seconds / longest * (_BAR - 70), 1.0)
        parts.append(element("text", step.name[:28], x=_LABEL - 8, y=y + 15, class_="end"))
        note = element("title", f"{step.name}: {step.seconds:.3f} s")
        parts.append(element("rect", note, x=_LABEL, y=y + 4, width=round(width, 1), height=14, class_="bar"))
        parts.append(element("text", f"{step.seconds:.1f} s", x=_LABEL + width + 6, y=y + 15))
    total = sum(step.seconds for step in done)
    text = f"Time of {len(done)} steps, {total:.1f} s together"
    return draw(text, *parts, width=_LABEL + _BAR, height=max(_ROW * len(done), _ROW))


def _error(record: RunRecord) -> str:
    return str((record.error or {}).get("error", ""))


def _result(step: RunStep) -> str:
    """The short values of a step's result: nested ones may hold values of personal columns, such as those of slices."""
    parts = ((name, value) for name, value in (step.result or {}).items() if type(value) in (str, int, float))
    return ", ".join(f"{name} {str(value)[:80]}" for name, value in parts)


ROUTES = (
    PageRoute(_LIST, runs, _SHOW, nav=Nav("Runs", "u")),
    PageRoute(_ONE, run, _SHOW),
)

"""Runs: the list, and one run with its steps, its error and its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.json import encode

from cumulant.console.charts import csv_response
from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.pages.events import Line, line_of, with_gaps
from cumulant.console.pages.run_search import search_section, trial_table
from cumulant.console.security import security_headers
from cumulant.console.texts import plain
from cumulant.core.errors import ConflictError, not_found
from cumulant.flows.ledger.actions import check
from cumulant.flows.ledger.ledger_records import RunRecord
from cumulant.flows.ledger.run_views import RunStep, run_detail, run_log, run_page
from cumulant.flows.reports.svg_elements import Child, Drawing, draw, element
from cumulant.flows.training.run_trials import run_trials
from cumulant.server.operations.training import train_

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.server.jobs import Job

_SHOW, _CANCEL, _TRAIN = "runs.show", "runs.cancel", "model.train"
_LIST, _ONE = "/projects/{project}/runs", "/projects/{project}/runs/{run}"
STATUSES = ("running", "done", "failed", "refused", "interrupted", "lost")
#: states of a run that another one may go on from, and settings of a training that a job takes
_RESUMABLE = frozenset({"failed", "interrupted", "lost"})
_RESUMED = ("quick", "as_of", "trials", "time")
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
    job = _job_of(page, record)
    search = search_section(page, record.id)
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
        search=search,
        log=_log(page, record.id),
        job=job,
        cancel=page.href("runs", record.id, "cancel") if job is not None and page.may(_CANCEL) else "",
        resume=page.href("runs", record.id, "resume") if _can_resume(record) and page.may(_TRAIN) else "",
        again=_again(record),
        href=lambda name: page.href("runs", name),
    )


def trials_file(page: PageRequest) -> Response:
    """All trials of the run's search."""
    search = run_trials(page.project, page.path("run"), principal=page.principal)
    if search is None:
        raise not_found("trials of run", page.path("run")[:80], ())
    heads, rows = trial_table(search)
    return csv_response(f"trials-{page.path('run')}", [head for head, _ in heads], rows, security_headers(page.nonce))


def cancel(page: PageRequest) -> Response:
    """Cancel the job that the run belongs to; its finished steps are kept."""
    check(page.project, page.principal, _CANCEL)
    record = run_detail(page.project, page.path("run"), principal=page.principal).run
    job = _job_of(page, record)
    if job is None:
        raise ConflictError(
            f"run {record.id} is no running job of this server", subject=record.id, hint="end it where it was started"
        )
    page.jobs.cancel(page.project.journal(), job, by=page.principal.id)
    return page.redirect(page.href("runs", record.id), done="run-cancelled")


def resume(page: PageRequest) -> Response:
    """Train again with the run's settings, as a job: it goes on after the last finished step and trial."""
    check(page.project, page.principal, _TRAIN)
    record = run_detail(page.project, page.path("run"), principal=page.principal).run
    if not _can_resume(record):
        raise ConflictError(f"run {record.id} is not one to resume", subject=record.id, hint=_again(record))
    body = {name: record.settings[name] for name in _RESUMED if record.settings.get(name) is not None}
    page.jobs.submit(page.project, page.principal, train_.name, _TRAIN, {"body": body})
    return page.redirect(page.href("runs"), done="run-resumed")


def _can_resume(record: RunRecord) -> bool:
    """Whether the run is a training that did not end by itself, with settings that a job takes."""
    known = {name for name, value in record.settings.items() if value not in (None, "", [], {})}
    return record.flow == "train" and record.status in _RESUMABLE and known <= set(_RESUMED)


def _again(record: RunRecord) -> str:
    """How the run goes on, where it did not end by itself."""
    if record.status not in _RESUMABLE:
        return ""
    return f"run `cumulant {record.flow}` again: it goes on after the last finished step"


def _job_of(page: PageRequest, record: RunRecord) -> Job | None:
    """The running job of this server in whose process the run is."""
    if record.status != "running":
        return None
    jobs = page.jobs.list_all(page.project.journal())
    return next((job for job in jobs if job.status == "running" and job.process == record.process), None)


def _log(page: PageRequest, run: str) -> list[Line]:
    """The newest events of the run, the newest first; empty where the principal may not see events."""
    if not page.may("events.show"):
        return []
    return [line_of(*item) for item in with_gaps(reversed(run_log(page.project, run, principal=page.principal)))]


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
    PageRoute(f"{_ONE}/trials.csv", trials_file, _SHOW),
    PageRoute(
        f"{_ONE}/cancel",
        cancel,
        _CANCEL,
        "POST",
        notices={"run-cancelled": "The run is being cancelled. What it has finished is kept."},
    ),
    PageRoute(
        f"{_ONE}/resume",
        resume,
        _TRAIN,
        "POST",
        notices={"run-resumed": "The training goes on as a new run, which appears here in some seconds."},
    ),
)

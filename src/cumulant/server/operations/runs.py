"""Runs of flows and their steps."""

from __future__ import annotations

from cumulant.flows.ledger.ledger_records import RUN, RunRecord
from cumulant.flows.ledger.run_views import RunDetail, run_detail, run_page
from cumulant.flows.reports.content import ReportData
from cumulant.flows.reports.report import content
from cumulant.flows.training.run_trials import RunTrials, run_trials
from cumulant.server.operation import ApiCall, CountedPage, PageQuery, get
from cumulant.server.pages import bad_cursor, check_limit


class RunQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`flow`: only runs of that flow, such as `train`; `status`: only those that ended so."""

    flow: str = ""
    status: str = ""


@get("/runs", action="runs.show")
def list_(call: ApiCall, query: RunQuery) -> CountedPage[RunRecord]:
    """List runs, newest first."""
    page = run_page(
        call.project,
        principal=call.principal,
        flow=query.flow,
        status=query.status,
        after=query.cursor,
        limit=check_limit(query.limit),
    )
    if query.cursor and call.project.journal().get(RUN, query.cursor) is None:
        raise bad_cursor()
    return CountedPage(list(page.runs), page.after or None, page.total)


@get("/runs/{run}", action="runs.show")
def show(call: ApiCall, run: str) -> RunDetail:
    """Show a run with its steps: by its id, the beginning of it, or `latest`."""
    return run_detail(call.project, run, principal=call.principal)


@get("/runs/{run}/trials", action="runs.show")
def trials(call: ApiCall, run: str) -> RunTrials:
    """Show the trials of a run's search, with the scores of their folds; until it is done, those reported so far."""
    return run_trials(call.project, run, principal=call.principal) or RunTrials(trials=(), done=False)


@get("/runs/{run}/report", action="project.report")
def report(call: ApiCall, run: str) -> ReportData:
    """Show the content of a run's report: by its id, the beginning of it, or `latest`."""
    return content(call.project, run, principal=call.principal)


OPERATIONS = (list_, show, trials, report)

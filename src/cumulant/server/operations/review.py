"""The review queue: cases, and what a reviewer does with them. `seen`: the revision of the case that is known."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from cumulant.flows.review.case_pages import ListStatus, case_page
from cumulant.flows.review.service import (
    AnsweredCase,
    assign,
    case_named,
    decide,
    escalate,
    first_cases,
    ingest_decisions,
    next_case,
    note,
    report,
    show_case,
    skip,
    undo,
)
from cumulant.flows.review.views import CaseLine, CaseView
from cumulant.review.cases import FillResult
from cumulant.review.report import ReviewSummary
from cumulant.server.operation import ApiCall, ListPage, PageQuery, get, post
from cumulant.server.pages import check_limit


class CaseQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`status`: waiting cases in the order in which they are assigned, or closed ones, newest first."""

    status: ListStatus = "waiting"


@get("/review/cases", action="review.show")
def list_(call: ApiCall, query: CaseQuery) -> ListPage[CaseLine]:
    """List cases."""
    page = case_page(
        call.project,
        principal=call.principal,
        status=query.status,
        after=query.cursor,
        limit=check_limit(query.limit),
    )
    return ListPage(list(page.cases), page.after or None)


class QueueQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `cumulant review list`."""

    status: Literal["waiting", "done", "expired", "all"] = "waiting"
    limit: int = 20


class QueuedCases(msgspec.Struct, frozen=True, kw_only=True):
    """`total`: how many there are in all."""

    cases: list[CaseView]
    total: int


@get("/review/queue", action="review.show")
def queue(call: ApiCall, query: QueueQuery) -> QueuedCases:
    """Show the first cases with their rows: waiting ones in their order, closed ones the newest first."""
    cases, total = first_cases(
        call.project, principal=call.principal, status=query.status, limit=check_limit(query.limit)
    )
    return QueuedCases(cases=cases, total=total)


@get("/review/report", action="review.show")
def report_(call: ApiCall) -> ReviewSummary:
    """Show the queue in numbers."""
    return report(call.project, principal=call.principal)


@get("/review/cases/{case}", action="review.show")
def show(call: ApiCall, case: str) -> CaseView:
    """Show a case; the model's answer is hidden until the caller has decided."""
    return show_case(call.project, case, principal=call.principal)


class NamedCase(msgspec.Struct, frozen=True):
    """The id of a case."""

    case: str


@get("/review/named/{beginning}", action="review.show")
def named(call: ApiCall, beginning: str) -> NamedCase:
    """Show the id of the case whose id begins so."""
    return NamedCase(case_named(call.project, beginning, principal=call.principal))


class NextBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`passed`: cases to skip now."""

    passed: list[str] = []


@post("/review/next", action="review.answer", personal=True)
def next_(call: ApiCall, body: NextBody) -> CaseView | None:
    """Take the next case, which is kept for the caller for a while; null where none is left."""
    return next_case(call.project, principal=call.principal, passed=body.passed)


class DecideBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`label`: a label of the model, or a number."""

    label: str | int | float | bool
    note: str = ""
    seen: str | None = None


@post("/review/cases/{case}/decide", action="review.answer", personal=True)
def decide_(call: ApiCall, case: str, body: DecideBody) -> AnsweredCase:
    """Decide what is true of a case."""
    return decide(call.project, case, body.label, principal=call.principal, note=body.note, seen=body.seen)


class SkipBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seen: str | None = None


@post("/review/cases/{case}/skip", action="review.answer", personal=True)
def skip_(call: ApiCall, case: str, body: SkipBody) -> AnsweredCase:
    """Leave a case to others."""
    return skip(call.project, case, principal=call.principal, seen=body.seen)


class EscalateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    note: str = ""
    seen: str | None = None


@post("/review/cases/{case}/escalate", action="review.answer", personal=True)
def escalate_(call: ApiCall, case: str, body: EscalateBody) -> AnsweredCase:
    """Give a case to those who take escalated ones."""
    return escalate(call.project, case, principal=call.principal, note=body.note, seen=body.seen)


class UndoBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seen: str | None = None


@post("/review/cases/{case}/undo", action="review.answer", personal=True)
def undo_(call: ApiCall, case: str, body: UndoBody) -> AnsweredCase:
    """Withdraw the caller's answer to a case, as long as it has not become a label."""
    return undo(call.project, case, principal=call.principal, seen=body.seen)


class NoteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str


@post("/review/cases/{case}/notes", action="review.answer", personal=True)
def note_(call: ApiCall, case: str, body: NoteBody) -> CaseView:
    """Add a note to a case."""
    return note(call.project, case, body.text, principal=call.principal)


class AssignBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`to`: ada, or user:ada; null gives the case to everybody again."""

    to: str | None
    seen: str | None = None


@post("/review/cases/{case}/assign", action="review.assign")
def assign_(call: ApiCall, case: str, body: AssignBody) -> CaseLine:
    """Give a case to one reviewer, or to all again."""
    return assign(call.project, case, body.to, principal=call.principal, seen=body.seen)


class FillBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`at_once`: all that is left of the period's budget; `since`: where the first draw begins; null: a period ago."""

    at_once: bool = False
    since: datetime | None = None


@post("/review/fill", action="review.fill", long=True)
def fill_(call: ApiCall, body: FillBody) -> FillResult:
    """Queue cases from the predictions since the last draw, and make labels of decisions."""
    from cumulant.flows.review.fill_queue import fill  # loads tables, which commands that read do not need

    filled = fill(
        call.project, principal=call.principal, since=body.since, at_once=body.at_once, progress=call.progress
    )
    ingest_decisions(call.project, principal=call.principal)
    return filled


OPERATIONS = (list_, queue, named, report_, show, next_, decide_, skip_, escalate_, undo_, note_, assign_, fill_)

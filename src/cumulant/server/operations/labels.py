"""Labels of predictions."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from cumulant.core.units import from_micros, to_micros
from cumulant.flows.outcomes.labels import (
    Intake,
    PredictionLabels,
    ingest_labels,
    list_labels,
    report_labels,
    show_labels,
)
from cumulant.outcomes.labels.label_counts import Report
from cumulant.outcomes.labels.label_fact import LabelFact
from cumulant.server.operation import ApiCall, CountedPage, PageQuery, get, post
from cumulant.server.pages import bad_cursor, check_limit, decode_cursor, encode_cursor

#: above any moment in microseconds and any number of labels
_MOST = 1 << 53


class LabelQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`state`: only labels in that state, as `cumulant labels list --state`."""

    state: str | None = None


@get("/labels", action="labels.show")
def list_(call: ApiCall, query: LabelQuery) -> CountedPage[LabelFact]:
    """List labels, newest first; a page continues the list as it was at the first one."""
    limit, (until, start) = check_limit(query.limit), _place(query.cursor)
    labels, total = list_labels(
        call.project, principal=call.principal, state=query.state, limit=start + limit, until=until
    )
    if total <= start + limit:
        return CountedPage(labels[start:], None, total)
    return CountedPage(labels[start:], encode_cursor((to_micros(until or labels[0].received), start + limit)), total)


def _place(cursor: str) -> tuple[datetime | None, int]:
    """When the newest label of the first page was received, None at that page, and how many labels came before."""
    match decode_cursor(cursor):
        case None:
            return None, 0
        case (int(until), int(start)) if 0 <= until < _MOST and 0 <= start < _MOST:
            return from_micros(until), start
        case _:
            raise bad_cursor()


class LabelReportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`by`: day, week, version ...; days from `since` to `until`."""

    by: str = "day"
    since: date | None = None
    until: date | None = None


@get("/labels/report", action="labels.show")
def report(call: ApiCall, query: LabelReportQuery) -> Report:
    """Show how much of the predictions labels cover."""
    return report_labels(call.project, principal=call.principal, by=query.by, since=query.since, until=query.until)


class RequestLabels(msgspec.Struct, frozen=True):
    predictions: list[PredictionLabels]
    unmatched: list[LabelFact]


@get("/labels/{request}", action="labels.show")
def show(call: ApiCall, request: str) -> RequestLabels:
    """Show the labels of one request."""
    return RequestLabels(*show_labels(call.project, request, principal=call.principal))


class IngestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


@post("/labels/ingest", action="labels.ingest", long=True)
def ingest(call: ApiCall, body: IngestBody) -> Intake:
    """Take in the labels of `monitoring.labels` of the project file, each file once, and join them."""
    del body
    return ingest_labels(call.project, [], principal=call.principal)


OPERATIONS = (list_, report, ingest, show)

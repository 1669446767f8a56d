"""The prediction log, and labels of predictions."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from cumulant.flows.outcomes.labels import PredictionLabels, list_labels, report_labels, show_labels
from cumulant.flows.serving.predictions import (
    PredictionView,
    list_predictions,
    lost_predictions,
    prediction_log,
    show_prediction,
)
from cumulant.outcomes.labels.label_counts import Report
from cumulant.outcomes.labels.label_facts import LabelFact
from cumulant.server.operation import DEFAULT_ITEMS, ApiCall, get
from cumulant.server.pages import check_limit
from cumulant.serving.prediction_log.storage.log_reader import LogGap


class PredictionQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: only of that model; `since`: only those that were answered since."""

    model: str = ""
    since: datetime | None = None
    limit: int = DEFAULT_ITEMS


@get("/predictions", action="predictions.show")
def list_(call: ApiCall, query: PredictionQuery) -> list[PredictionView]:
    """List predictions, newest first; personal values are keyed hashes."""
    call.check(personal=True)
    log = prediction_log(call.project, principal=call.principal)
    return list_predictions(log, model=query.model or None, since=query.since, limit=check_limit(query.limit))


@get("/predictions/gaps", action="predictions.show")
def gaps(call: ApiCall) -> list[LogGap]:
    """Show which answered requests are missing in the log."""
    return lost_predictions(prediction_log(call.project, principal=call.principal))


@get("/predictions/{request}", action="predictions.show")
def show(call: ApiCall, request: str) -> list[PredictionView]:
    """Show the rows of one request: input, answer, model and state."""
    call.check(personal=True)
    return show_prediction(prediction_log(call.project, principal=call.principal), request)


class LabelQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`state`: only labels in that state, as `cumulant labels list --state`."""

    state: str | None = None
    limit: int = DEFAULT_ITEMS


@get("/labels", action="labels.show")
def labels(call: ApiCall, query: LabelQuery) -> list[LabelFact]:
    """List labels, newest first."""
    return list_labels(call.project, principal=call.principal, state=query.state, limit=check_limit(query.limit))[0]


class LabelReportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`by`: day, week, version ...; days from `since` to `until`."""

    by: str = "day"
    since: date | None = None
    until: date | None = None


@get("/labels/report", action="labels.show")
def label_report(call: ApiCall, query: LabelReportQuery) -> Report:
    """Show how much of the predictions labels cover."""
    return report_labels(call.project, principal=call.principal, by=query.by, since=query.since, until=query.until)


class RequestLabels(msgspec.Struct, frozen=True):
    predictions: list[PredictionLabels]
    unmatched: list[LabelFact]


@get("/labels/{request}", action="labels.show")
def request_labels(call: ApiCall, request: str) -> RequestLabels:
    """Show the labels of one request."""
    return RequestLabels(*show_labels(call.project, request, principal=call.principal))


OPERATIONS = (list_, gaps, show, labels, label_report, request_labels)

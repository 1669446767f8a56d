"""Monitoring of the served model: how it does, quality and drift over time, retraining, and an evaluation now."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from cumulant.core.structs import struct_from
from cumulant.core.units import duration
from cumulant.flows.monitoring.backtest.backtest_record import BacktestResult
from cumulant.flows.monitoring.drift.drift_history import DriftHistory
from cumulant.flows.monitoring.monitoring_views import QualityView, RetrainingView
from cumulant.flows.monitoring.monitoring_views import drift as read_drift
from cumulant.flows.monitoring.monitoring_views import quality as read_quality
from cumulant.flows.monitoring.monitoring_views import retraining as read_retraining
from cumulant.flows.monitoring.retraining import continue_retraining
from cumulant.flows.monitoring.run import MonitorFinding, run_monitoring
from cumulant.flows.monitoring.state import RetrainRequest
from cumulant.flows.overview.project_overview import ProjectOverview, project_overview
from cumulant.monitoring.retrain_rule import RetrainAction
from cumulant.server.operation import ApiCall, get, post
from cumulant.server.pages import check_limit


@get("/overview", action="project.overview")
def overview(call: ApiCall) -> ProjectOverview:
    """Show how the project's model does: what is wrong, since when, what was changed before it, and its figures."""
    return project_overview(call.project, principal=call.principal, memory=call.memory)


class QualityQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`version`: of that version; empty: of the one that serves."""

    version: str = ""


@get("/monitor/quality", action="monitor.show")
def quality(call: ApiCall, query: QualityQuery) -> QualityView | None:
    """Show the labelled quality over time, a window each; null where nothing was evaluated."""
    return read_quality(call.project, principal=call.principal, version=query.version)


@get("/monitor/drift", action="monitor.show")
def drift(call: ApiCall) -> DriftHistory | None:
    """Show how far each column was from the reference over time; null where nothing was compared."""
    return read_drift(call.project, principal=call.principal)


class RetrainingQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limit`: how many of the newest steps."""

    limit: int = 50


@get("/monitor/retraining", action="monitor.show")
def retraining(call: ApiCall, query: RetrainingQuery) -> RetrainingView:
    """Show requested trainings and what became of them, the newest first."""
    return read_retraining(call.project, principal=call.principal, limit=check_limit(query.limit))


class MonitorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation found; `alarming`: something is, now."""

    at: datetime
    model: str
    version: str
    alarming: bool
    findings: tuple[MonitorFinding, ...]
    action: RetrainAction


class MonitorBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`at`: from what was known at that moment, which lies in the past; null: now."""

    at: datetime | None = None


@post("/monitor/run", action="monitor.run", long=True)
def run(call: ApiCall, body: MonitorBody) -> MonitorSummary:
    """Evaluate the served model once: drift, estimated and labelled quality, alerts."""
    return struct_from(
        MonitorSummary, run_monitoring(call.project, principal=call.principal, at=body.at, progress=call.progress)
    )


class RetrainBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`as_of`: train on what was known at that moment; null: now."""

    as_of: datetime | None = None


@post("/monitor/retrain", action="model.train", long=True)
def retrain(call: ApiCall, body: RetrainBody) -> RetrainRequest | None:
    """Train and release as far as the recorded request of retraining requires."""
    return continue_retraining(call.project, principal=call.principal, as_of=body.as_of, progress=call.progress)


class BacktestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the options of `cumulant monitor backtest`; null: its defaults."""

    every: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    first: Annotated[int, msgspec.Meta(ge=1)] | None = None
    memory: str | None = None
    history: str | None = None
    estimate: bool = False


@post("/monitor/backtest", action="monitor.backtest", long=True)
def backtest(call: ApiCall, body: BacktestBody) -> BacktestResult:
    """Replay labelled history under rules of retraining: trainings, alarms and loss of each."""
    from cumulant.flows.monitoring.backtest.backtest import BacktestRequest, backtest_project  # loads numpy

    request = BacktestRequest(
        every=None if body.every is None else duration(body.every),
        since=body.since,
        until=body.until,
        first=body.first,
        memory=body.memory,
        history=body.history,
        estimate=body.estimate,
    )
    return backtest_project(call.project, request, principal=call.principal, progress=call.progress)


OPERATIONS = (overview, quality, drift, retraining, run, retrain, backtest)

"""Operation of a project: its plan, its processes, its monitoring, and work that is due."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.core.structs import struct_from
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.maintenance.unneeded_files import Removed
from cumulant.flows.monitoring.retraining import continue_retraining
from cumulant.flows.monitoring.run import MonitorFinding, run_monitoring
from cumulant.flows.monitoring.state import RetrainRequest
from cumulant.flows.observe.slo import SloView, show_objectives
from cumulant.flows.overview.project_overview import ProjectOverview, project_overview
from cumulant.flows.project.planning import TrainingPlan, plan
from cumulant.flows.stack.lifecycle import ps
from cumulant.flows.stack.status import Status
from cumulant.monitoring.retrain_rule import RetrainAction
from cumulant.server.operation import ApiCall, get, post


class NoBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


@get("/overview", action="project.overview")
def overview(call: ApiCall) -> ProjectOverview:
    """Show how the project's model does: what is wrong, since when, what was changed before it, and its figures."""
    return project_overview(call.project, principal=call.principal)


@get("/objectives", action="stack.show")
def objectives(call: ApiCall) -> SloView:
    """Show the service level objectives with their budgets and burn rates."""
    return show_objectives(call.project, principal=call.principal)


@get("/plan", action="project.plan")
def plan_(call: ApiCall) -> TrainingPlan:
    """Show what would run, checked."""
    return plan(call.project, principal=call.principal)


@get("/stack", action="stack.show")
def stack(call: ApiCall) -> Status | None:
    """Show the processes that serve the project; null where none do."""
    return ps(call.project, principal=call.principal)


class MonitorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation found; `alarming`: something is, now."""

    at: datetime
    model: str
    version: str
    alarming: bool
    findings: tuple[MonitorFinding, ...]
    action: RetrainAction


@post("/monitor/run", action="monitor.run", long=True)
def monitor(call: ApiCall, body: NoBody) -> MonitorSummary:
    """Evaluate the served model now: drift, estimated and labelled quality, alerts."""
    del body
    return struct_from(MonitorSummary, run_monitoring(call.project, principal=call.principal, progress=call.progress))


@post("/monitor/retrain", action="model.train", long=True)
def retrain(call: ApiCall, body: NoBody) -> RetrainRequest | None:
    """Train and release as far as the recorded request of retraining requires."""
    del body
    return continue_retraining(call.project, principal=call.principal, progress=call.progress)


class CleanBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dry_run`: only list what could be removed."""

    dry_run: bool = True


@post("/clean", action="project.clean", long=True)
def clean_(call: ApiCall, body: CleanBody) -> list[Removed]:
    """Remove what no kept snapshot, model or recent run needs."""
    return clean(call.project, principal=call.principal, dry_run=body.dry_run, progress=call.progress)


OPERATIONS = (overview, objectives, plan_, stack, monitor, retrain, clean_)

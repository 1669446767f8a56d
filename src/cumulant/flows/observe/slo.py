"""The state of a project's service level objectives, from the log of its gateways, and their rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import UsageError
from cumulant.core.units import from_micros
from cumulant.flows.alerting.store import read
from cumulant.flows.ledger.actions import verb
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.slo_rules import Source, rules_text, service_name
from cumulant.monitoring.objectives import Objective, ObjectiveState, Severity, objective_state
from cumulant.monitoring.slo_gate import find_hold

if TYPE_CHECKING:
    from cumulant.alerting.alert_state import AlertsState
    from cumulant.monitoring.request_counts import RequestMinutes
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

_MATCHER = r"""\s*[A-Za-z_][A-Za-z0-9_]*\s*(?:=~|!~|!=|=)\s*(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')\s*"""
#: label matchers of Prometheus, between the braces of a selector
_MATCHERS = re.compile(f"{_MATCHER}(?:,{_MATCHER})*")


#: the rule of the alerts on objectives
OBJECTIVE = "objective"


class SloView(msgspec.Struct, frozen=True, kw_only=True):
    """The objectives of a model at a moment. `hold`: why no release begins now by `release.slo`; empty: one may."""

    model: str
    at: datetime
    objectives: list[ObjectiveState]
    hold: str


@verb("stack.show")
def show_objectives(
    project: Project, *, principal: Principal, clock: Clock | None = None, requests: GatewayRequests | None = None
) -> SloView:
    """The state of each objective: budget and burn rates, by the limits that its alert has now. `requests`: what a
    server remembers of them.

    Raises:
        UsageError: the project declares none.
        StorageError, EngineUnavailableError: the gateways' log cannot be read.
    """
    declared, now = declared_objectives(project), (clock or SystemClock()).now()
    active = active_alerts(project.name, read(project.journal())[0])
    with (requests or GatewayRequests()).counted(project, now) as minutes:
        states = objective_states(declared, minutes, now, active)
        plain = objective_states(declared, minutes, now) if active else states
    hold = find_hold(plain, project.policies.release.slo)  # as the start of a release decides
    return SloView(model=project.name, at=now, objectives=states, hold=hold)


def active_alerts(model: str, alerts: AlertsState) -> dict[str, Severity]:
    """The objectives whose alert fires, with how urgent it is."""
    return {
        alert.finding.subject: "page" if alert.finding.level == "critical" else "ticket"
        for alert in alerts.alerts.values()
        if alert.finding.scope == (model, OBJECTIVE)
    }


def objective_states(
    declared: Sequence[Objective],
    minutes: RequestMinutes,
    now: datetime,
    alerts: Mapping[str, Severity] = MappingProxyType({}),
) -> list[ObjectiveState]:
    """The state of each objective by the counts. `alerts`: those that fire already, which last a little longer."""
    first = min(minutes.minutes, default=None)
    since = None if first is None else from_micros(first * 60_000_000)
    return [
        objective_state(
            objective,
            minutes,
            now,
            since=since if since is None or since > now - objective.window else None,
            alert=alerts.get(objective.sli),
        )
        for objective in declared
    ]


@verb("stack.show")
def objective_rules(project: Project, *, principal: Principal, source: Source = "gateway", selector: str = "") -> str:
    """The rule file of the objectives.

    Raises:
        UsageError: the project declares none, or `selector` is no list of label matchers.
    """
    if selector and not _MATCHERS.fullmatch(selector):
        raise UsageError(
            f"{selector} is no list of label matchers",
            subject="selector",
            hint='write NAME="VALUE" or NAME=~"PATTERN", with commas between: environment="prod",region=~"eu-.*"',
        )
    return rules_text(
        service_name(project.name, project.environment),
        project.name,
        declared_objectives(project),
        source=source,
        selector=selector,
    )


def declared_objectives(project: Project) -> tuple[Objective, ...]:
    """Raises UsageError where there are none."""
    declared = project.policies.objectives
    if not declared:
        raise UsageError(
            "the project declares no objectives",
            subject=str(project.file.path),
            hint="add `serving: {slo: {objective: 99.9%}}` to cumulant.yaml",
        )
    return declared

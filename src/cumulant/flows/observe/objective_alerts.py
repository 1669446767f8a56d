"""Alerts on the objectives of the served model, so that its receivers are notified without a Prometheus.

Prometheus' rules read counters of the gateway, these its log; both use the burn rates of `monitoring/objectives.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read
from cumulant.flows.maintenance.rounds import repeat_in_background
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.slo import OBJECTIVE, active_alerts, objective_states
from cumulant.monitoring.objective_text import objective_advice, objective_sentence
from cumulant.monitoring.objectives import CAUSES, ObjectiveState

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: seconds between two evaluations
_ROUND = 30.0


def objective_findings(model: str, states: Sequence[ObjectiveState], active: Collection[str] = ()) -> Iterator[Finding]:
    """Of the objectives whose budget is used at the rate of an alert, until the newest requests show that it ended.

    `active`: those with an alert. To end one takes less than not to raise it, so that it does not do both in turns.
    """
    for state in states:
        if state.firing is None or state.episode is None:
            continue
        if not (state.episode.subsided if state.sli in active else state.episode.faded):
            yield Finding(
                model=model,
                rule=OBJECTIVE,
                subject=state.sli,
                kind=CAUSES[state.sli],
                moved=objective_sentence(state),
                since=state.episode.begun,
                next=objective_advice(state),
                level="critical" if state.firing == "page" else "warning",
            )


def evaluate_objectives(
    project: Project, *, principal: Principal, requests: GatewayRequests | None = None, clock: Clock | None = None
) -> str:
    """Evaluate the alerts by the objectives as they are now; the result in a sentence. `requests`: what was counted.

    It writes nothing while no alert fires, begins or ends.

    Raises:
        StorageError, EngineUnavailableError: the gateways' log cannot be read, or the journal does not answer.
    """
    declared, now = project.policies.objectives, (clock or SystemClock()).now()
    findings: list[Finding] = []
    active = active_alerts(project.name, read(project.journal())[0])
    if declared:
        with (requests or GatewayRequests()).counted(project, now) as minutes:
            findings = list(objective_findings(project.name, objective_states(declared, minutes, now, active), active))
    if findings or active:
        observe(project, findings, principal=principal, examined=[(project.name, OBJECTIVE)], clock=clock)
    if not declared:
        return "the project declares no objectives"
    return "; ".join(finding.moved for finding in findings) or "no error budget is used at the rate of an alert"


def watch_objectives(
    project: Project, report: Callable[[str], object], *, pause: float = _ROUND
) -> AbstractContextManager[None]:
    """Evaluate the alerts by the objectives each `pause` seconds while the block lasts. Errors go to `report`."""
    requests = GatewayRequests()

    def evaluate() -> None:
        evaluate_objectives(project, principal=project.principal(), requests=requests)

    return repeat_in_background(project, evaluate, report, failure="objectives are not evaluated", pause=pause)

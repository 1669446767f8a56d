"""Alerts on the objectives of the served model, so that its receivers are notified without a Prometheus.

Prometheus' rules read counters of the gateway, these its log; both use the burn rates of `monitoring/objectives.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cumulant.alerting.alert_state import AlertsState, Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read
from cumulant.flows.observe.gateway_requests import GatewayRequests
from cumulant.flows.observe.slo import objective_states
from cumulant.monitoring.objective_text import objective_advice, objective_sentence
from cumulant.monitoring.objectives import CAUSES, ObjectiveState, Severity

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the rule of these alerts
OBJECTIVE = "objective"
#: seconds between two evaluations, and for which the end waits for one under way
_ROUND, _LAST = 30.0, 2.0


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


def active_alerts(model: str, alerts: AlertsState) -> dict[str, Severity]:
    """The objectives whose alert fires, with how urgent it is."""
    return {
        alert.finding.subject: "page" if alert.finding.level == "critical" else "ticket"
        for alert in alerts.alerts.values()
        if alert.finding.scope == (model, OBJECTIVE)
    }


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


@contextmanager
def watch_objectives(project: Project, report: Callable[[str], object], *, pause: float = _ROUND) -> Iterator[None]:
    """Evaluate the alerts by the objectives each `pause` seconds while the block lasts. Errors go to `report`."""
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(project, ended, report, pause), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST)


def _run(project: Project, ended: threading.Event, report: Callable[[str], object], pause: float) -> None:
    requests = GatewayRequests()
    while not ended.wait(pause):
        try:
            evaluate_objectives(project, principal=project.principal(), requests=requests)
        except CumulantError as error:
            report(f"objectives are not evaluated: {project.vault.redact(str(error))}")
        except Exception as error:  # noqa: BLE001 - the edge: requests go on, and the next round tries again
            fault = project.vault.redact(str(error))
            report(f"a fault of the evaluation of objectives, which tries again: {type(error).__name__}: {fault}")

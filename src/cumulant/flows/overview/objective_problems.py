"""Requests that are answered with errors or too late, by the objectives of the served model: how many, since when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_state import AlertsState, is_silent
from cumulant.flows.observe.slo import OBJECTIVE, objective_states
from cumulant.flows.overview.problems import ModelProblem, NextStep
from cumulant.monitoring.objective_text import objective_advice, objective_sentence
from cumulant.monitoring.objectives import CAUSES, UNDECLARED, Objective, ObjectiveState

if TYPE_CHECKING:
    from cumulant.monitoring.request_counts import RequestMinutes

#: requests are counted by the minute: a change within the minute in which a problem began may be its cause
RESOLUTION = timedelta(minutes=1)


def undeclared_problems(declared: Sequence[Objective], minutes: RequestMinutes, now: datetime) -> list[ModelProblem]:
    """Server errors where no objective says how many there may be: only so many that hardly any would allow them."""
    if declared:
        return []
    states = objective_states([UNDECLARED], minutes, now)
    return [_problem(state, now, declared=False, known=False) for state in states if state.firing == "page"]


def objective_problems(states: Sequence[ObjectiveState], alerts: AlertsState, at: datetime) -> list[ModelProblem]:
    """Objectives whose error budget is used too fast, or up by enough requests to say so.

    `alerts`: somebody knows of those that are acknowledged or silenced.
    """
    known = {
        alert.finding.subject
        for alert in alerts.firing
        if alert.finding.rule == OBJECTIVE and (alert.acknowledged is not None or is_silent(alerts, alert, at))
    }
    return [
        _problem(state, at, declared=True, known=state.sli in known) for state in states if state.firing or state.spent
    ]


def without_objectives(alerts: AlertsState) -> AlertsState:
    """The alerts but for those of objectives, which are shown as they are now: an alert resolves minutes later."""
    others = {key: alert for key, alert in alerts.alerts.items() if alert.finding.rule != OBJECTIVE}
    return msgspec.structs.replace(alerts, alerts=others)


def _age_of_last(state: ObjectiveState, now: datetime) -> str:
    """How long ago the newest bad request came, where that is no longer now."""
    if state.episode is None or state.episode.subsided:
        return ""
    minutes = (now - state.episode.last) // timedelta(minutes=1)
    return f"; the last one {minutes} minutes ago" if minutes > 1 else ""


def _problem(state: ObjectiveState, now: datetime, *, declared: bool, known: bool) -> ModelProblem:
    episode = state.episode
    begun = None if episode is None else episode.begun
    is_critical = state.firing == "page" and not (episode is not None and episode.subsided)
    step = NextStep(label="see the objectives", target="command", command="cumulant slo show", subject=state.sli)
    if not declared:
        step = NextStep(label="see the processes", target="stack", command="cumulant ps")
    return ModelProblem(
        level="critical" if is_critical else "warning",
        what="objective" if declared else "errors",
        subject=state.sli,
        sentence=objective_sentence(state, declared=declared) + _age_of_last(state, now),
        since=begun,
        noticed=begun,
        cause=CAUSES[state.sli],
        advice=objective_advice(state) if state.firing else "",
        known=known,
        next=step,
    )

"""Alerts and receivers as the command line and programs read them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_state import Alert, Silence, is_silent
from cumulant.alerting.messages import sentence
from cumulant.alerting.policy import LEVELS
from cumulant.core.clock import Clock, SystemClock
from cumulant.flows.alerting.outbox import left_out, refusals, waiting
from cumulant.flows.alerting.receiver_state import read_receiver_state
from cumulant.flows.alerting.store import read
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """An alert for programs. `notified_level`: of the last notification; `grouped`: it comes with the next digest."""

    id: str
    status: str
    level: str
    model: str
    rule: str
    subject: str
    kind: str
    text: str
    since: datetime
    began: datetime
    fired: datetime | None
    seen: datetime
    resolved: datetime | None
    notified_level: str | None
    grouped: bool
    silenced: bool
    acknowledged: str | None
    reminders: int


class ReceiverView(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver: how many messages wait for it, are refused by it or were left out, and how long it has failed."""

    receiver: str
    url: str
    waiting: int
    refused: int
    left_out: int
    failures: int
    failing_since: datetime | None
    retry: datetime | None
    fault: str
    delivered: datetime | None


class RefusedView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that its receiver refuses. `aside`: so often that it is tried once a day; `fault`: its answer."""

    message: str
    receiver: str
    title: str
    tries: int
    since: datetime
    retry: datetime
    aside: bool
    fault: str


class AlertsView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `spent` and `budget` are of the present period."""

    alerts: list[AlertView]
    silences: list[Silence]
    receivers: list[ReceiverView]
    refused: list[RefusedView]
    budget: str
    spent: int


@verb("alerts.show")
def overview(
    project: Project, *, principal: Principal, ended: bool = False, model: str = "", clock: Clock | None = None
) -> AlertsView:
    """What fires or is pending, the most urgent first; with `ended` also what is over, the newest first."""
    now, (state, _) = (clock or SystemClock()).now(), read(project.journal())
    alive = sorted(
        state.alerts.values(),
        key=lambda alert: (alert.status != "firing", -LEVELS.index(alert.level), alert.began, alert.id),
    )
    listed = [*alive, *(reversed(state.over) if ended else ())]
    policy = project.policies.monitoring.alerts
    return AlertsView(
        alerts=[
            alert_view(alert, silent=is_silent(state, alert, now))
            for alert in listed
            if model in ("", alert.finding.model)
        ],
        silences=[alert for alert in state.silences if alert.until > now],
        receivers=receiver_views(project),
        refused=[
            alert for receiver in project.receivers() for alert in refused_views(project.journal(), receiver.name)
        ],
        budget=str(policy.budget),
        spent=state.spent.get(policy.period_of(now), 0),
    )


def count_matches(project: Project, silence: Silence) -> tuple[int, int]:
    """How many of the alerts that fire or are pending a silence matches, and how many there are."""
    now, (state, _) = SystemClock().now(), read(project.journal())
    alerts = list(state.alerts.values())
    return sum(silence.matches(alert, now) for alert in alerts), len(alerts)


def receiver_views(project: Project) -> list[ReceiverView]:
    """The receivers, in the order of the project file."""
    journal, views = project.journal(), []
    for receiver in project.receivers():
        state, missed = read_receiver_state(journal, receiver.name)[0], left_out(journal, receiver.name)
        refused = len(refused_views(journal, receiver.name))
        counts = {
            "waiting": len(waiting(journal, receiver.name)) - refused,
            "refused": refused,
            "left_out": missed.messages if missed else 0,
        }
        fields = msgspec.structs.asdict(state) | counts | {"receiver": receiver.name, "url": receiver.shown}
        views.append(msgspec.convert(fields, ReceiverView))
    return views


def refused_views(journal: Journal, receiver: str) -> list[RefusedView]:
    """What a receiver refuses, the oldest first."""
    known = refusals(journal, receiver)
    return [
        RefusedView(
            **msgspec.structs.asdict(refusal),
            message=entry.message.key,
            receiver=receiver,
            title=entry.message.title,
            aside=refusal.aside,
        )
        for entry in waiting(journal, receiver)
        if (refusal := known.get(entry.key)) is not None
    ]


def alert_view(alert: Alert, *, silent: bool = False) -> AlertView:
    fields = msgspec.structs.asdict(alert.finding) | msgspec.structs.asdict(alert)
    return msgspec.convert(fields | {"text": sentence(alert), "grouped": alert.waits, "silenced": silent}, AlertView)

"""Alerts and receivers as people and programs read them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.monitoring.alerts import Alert, Silence, sentence
from cumulant.monitoring.alerts.policy import LEVELS
from cumulant.monitoring.alerts.silences import is_silent
from cumulant.runtime.actions import check
from cumulant.runtime.alerts.book import read
from cumulant.runtime.alerts.outbox import left_out, waiting
from cumulant.runtime.alerts.standing import standing

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project import Project


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """An alert for programs. `told`: at which level people know of it; `grouped`: it comes with the next digest."""

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
    told: str | None
    grouped: bool
    silenced: bool
    acknowledged: str | None
    reminders: int


class ReceiverView(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver: how many messages wait for it or were left out, and how long it has failed."""

    receiver: str
    url: str
    waiting: int
    left_out: int
    failures: int
    failing_since: datetime | None
    retry: datetime | None
    fault: str
    delivered: datetime | None


class AlertsView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `spent` and `budget` are of the present period."""

    alerts: list[AlertView]
    silences: list[Silence]
    receivers: list[ReceiverView]
    budget: str
    spent: int


def overview(
    project: Project, *, principal: Principal, ended: bool = False, model: str = "", clock: Clock | None = None
) -> AlertsView:
    """What fires or is pending, the most urgent first; with `ended` also what is over, the newest first."""
    check(project.access(), principal, "alerts.show", project.name)
    from cumulant.monitoring.alerts import policy

    now, (state, _) = (clock or SystemClock()).now(), read(project.journal())
    alive = sorted(
        state.alerts.values(), key=lambda one: (one.status != "firing", -LEVELS.index(one.level), one.began, one.id)
    )
    listed = [*alive, *(reversed(state.over) if ended else ())]
    spec = project.spec.monitoring.alerts
    return AlertsView(
        alerts=[view(one, silent=is_silent(state, one, now)) for one in listed if model in ("", one.finding.model)],
        silences=[one for one in state.silences if one.until > now],
        receivers=receiver_views(project),
        budget=spec.budget,
        spent=state.spent.get(policy(spec).period_of(now), 0),
    )


def receiver_views(project: Project) -> list[ReceiverView]:
    """How each receiver stands, in the order of the project file."""
    journal, views = project.journal(), []
    for receiver in project.receivers():
        found, missed = standing(journal, receiver.name)[0], left_out(journal, receiver.name)
        views.append(
            ReceiverView(
                receiver=receiver.name,
                url=receiver.shown,
                waiting=len(waiting(journal, receiver.name)),
                left_out=missed.messages if missed else 0,
                failures=found.failures,
                failing_since=found.failing_since,
                retry=found.retry,
                fault=found.fault,
                delivered=found.delivered,
            )
        )
    return views


def view(alert: Alert, *, silent: bool = False) -> AlertView:
    found = alert.finding
    return AlertView(
        id=alert.id,
        status=alert.status,
        level=alert.level,
        model=found.model,
        rule=found.rule,
        subject=found.subject,
        kind=found.kind,
        text=sentence(alert),
        since=found.since,
        began=alert.began,
        fired=alert.fired,
        seen=alert.seen,
        resolved=alert.resolved,
        told=alert.told,
        grouped=alert.waits,
        silenced=silent,
        acknowledged=alert.acknowledged,
        reminders=alert.reminders,
    )

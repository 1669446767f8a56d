"""The text of alerts: what moved, since when, the likely kind of change, its cost, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.units import show_duration
from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.alerting.alert_state import Alert, AlertChange

_KINDS: Mapping[str, str] = {
    "data_fault": "a data fault: what is sent changed, and not the world",
    "covariate": "a covariate shift: the inputs changed, which may be harmless",
    "prior": "a prior shift: how often each outcome happens changed",
    "concept": "a concept shift: the same inputs have other outcomes",
    "volume": "a change of how many rows arrive: a feed, a caller or the log",
    "quality": "a question of data quality",
    "feed": "an incomplete feed",
}
#: alerts of a digest that have a line each; the others are counted
_LINES = 20


def sentence(alert: Alert) -> str:
    """`missing values of fare rose from 0.1% to 38%, since 2026-11-24 06:00 UTC. Likely a data fault: ...`."""
    finding = alert.finding
    since = f"{'at least since' if finding.at_least else 'since'} {_moment(finding.since)}"
    parts = [f"{finding.moved.rstrip('.')}, {since}."]
    if finding.kind:
        parts.append(f"Likely {_KINDS.get(finding.kind, finding.kind)}.")
    if finding.cost:
        parts.append(f"Cost: {finding.cost.rstrip('.')}.")
    if finding.next:
        parts.append(f"Next: {finding.next.rstrip('.')}.")
    return " ".join(parts)


def title(alert: Alert) -> str:
    """`critical: data_fault in fare of flight-late`."""
    finding = alert.finding
    return f"{alert.level}: {finding.rule} in {finding.subject} of {finding.model}"


def message(change: AlertChange) -> Message:
    if change.what == "digest":
        return _digest(change)
    alert = change.alert
    heads = {
        "notified": "" if change.was is None else f"now {alert.level}, it was {change.was}: ",
        "reminded": f"still so after {_round(change.at - (alert.fired or change.at))}: ",
        "cleared": f"over after {_round(change.at - (alert.fired or change.at))}: ",
    }
    over = alert.status == "resolved"
    head = heads.get(change.what, "")
    can_acknowledge = change.what in ("notified", "reminded") and alert.acknowledged is None
    tail = f" `cumulant alerts ack {alert.id}` acknowledges it." if can_acknowledge else ""
    return Message(
        key=f"{alert.id}/{change.what}/{alert.reminders if change.what == 'reminded' else alert.level}",
        kind="alert",
        status="resolved" if over else "firing",
        level=alert.level,
        model=alert.finding.model,
        rule=alert.finding.rule,
        subject=alert.finding.subject,
        title=f"resolved: {title(alert).partition(': ')[2]}" if over else title(alert),
        text=head + sentence(alert) + tail,
        at=alert.fired or change.at,
        since=alert.finding.since,
        ended=alert.resolved,
        was=change.was,
        detail=detail(alert),
    )


def detail(alert: Alert) -> dict[str, object]:
    """An alert's own words and figures for programs."""
    finding = alert.finding
    named = {"id": alert.id, "kind": finding.kind, "moved": finding.moved, "cost": finding.cost, "next": finding.next}
    return {**named, "reminders": alert.reminders, "acknowledged": alert.acknowledged}


def _digest(change: AlertChange) -> Message:
    alerts = change.alerts
    firing = sum(alert.status == "firing" for alert in alerts)
    lines = [
        f"- {title(alert)}{' (over)' if alert.status == 'resolved' else ''}: {sentence(alert)}" for alert in alerts
    ]
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"- and {len(lines) - _LINES} more: `cumulant alerts list`"]
    models = sorted({alert.finding.model for alert in alerts})
    return Message(
        key=f"digest/{change.at.isoformat()}",
        kind="digest",
        status="firing" if firing else "resolved",
        level=max((alert.level for alert in alerts), key=("info", "warning", "critical").index),
        model=", ".join(models),
        rule="digest",
        subject=f"{len(alerts)} alerts",
        title=f"{len(alerts)} alerts beyond the budget of {', '.join(models)}",
        text="\n".join((f"{firing} fire, {len(alerts) - firing} are over; the budget of messages is spent.", *lines)),
        at=change.at,
        detail={"alerts": [msgspec.to_builtins(detail(alert)) for alert in alerts]},
    )


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _round(span: timedelta) -> str:
    """A span in its two largest units."""
    seconds = max(0.0, span.total_seconds())
    unit = 3600 if seconds >= 86400 else 60 if seconds >= 3600 else 1
    return show_duration(timedelta(seconds=seconds // unit * unit))

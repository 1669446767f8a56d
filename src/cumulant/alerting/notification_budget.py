"""Which alerts are sent: each once, then a few reminders, within a budget of messages; beyond it one digest a day."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from cumulant.alerting.alert_state import Alert, AlertChange, AlertsState, elapsed
from cumulant.alerting.policy import LEVELS, Policy, above
from cumulant.alerting.silences import is_silent

_replace = msgspec.structs.replace
_DAY = 86400.0
#: periods of the budget that are remembered, for a clock that is set back
_PERIODS = 3


def notify_due(state: AlertsState, at: datetime, policy: Policy) -> tuple[AlertsState, list[AlertChange]]:
    """The state after the due notifications, and these, the most urgent first while the budget lasts."""
    passed, period = elapsed(state.at, at), policy.period_of(at)
    alerts, spent, changes = dict(state.alerts), state.spent.get(period, 0), list[AlertChange]()
    urgent = sorted(alerts.items(), key=lambda pair: (-LEVELS.index(pair[1].level), pair[1].began, pair[0]))
    for key, alert in urgent:
        if alert.status != "firing":
            continue
        silent, in_budget = is_silent(state, alert, at), spent < policy.budget.number
        after, what = _due(alert, passed, policy, silent=silent, in_budget=in_budget)
        alerts[key] = after
        if what is not None:
            spent += 1
            was = alert.notified_level if what == "notified" else None
            changes.append(AlertChange(what=what, alerts=(after,), at=at, was=was))
    counts = {**state.spent, period: spent} if changes else state.spent
    waited = state.grouped + passed if state.waiting else 0.0
    after_all = _replace(state, alerts=alerts, spent=_last_periods(counts, period), grouped=waited)
    return _digested(after_all, at, changes)


def _due(
    alert: Alert, passed: float, policy: Policy, *, silent: bool, in_budget: bool
) -> tuple[Alert, Literal["notified", "reminded"] | None]:
    """The alert with its last notification, and which one is due."""
    if silent:
        return _replace(alert, waits=False), None
    allowed = in_budget or alert.level == "critical"
    if above(alert.level, alert.notified_level):
        if not allowed or (alert.waits and alert.level != "critical"):
            return _replace(alert, waits=True), None
        return _replace(alert, notified_level=alert.level, waits=False, quiet=0.0), "notified"
    quiet = alert.quiet + passed
    due = quiet >= policy.remind * 2**alert.reminders and alert.reminders < policy.reminders
    if due and allowed and alert.acknowledged is None:
        return _replace(alert, quiet=0.0, reminders=alert.reminders + 1), "reminded"
    return _replace(alert, quiet=quiet), None


def _digested(state: AlertsState, at: datetime, changes: list[AlertChange]) -> tuple[AlertsState, list[AlertChange]]:
    """With the digest, where something has waited for a day."""
    waiting = state.waiting
    if not waiting or state.grouped < _DAY:
        return state, changes
    changes.append(AlertChange(what="digest", alerts=tuple(waiting), at=at))
    known = {key: _known(alert) for key, alert in state.alerts.items()}
    over = tuple(map(_known, state.over))
    return _replace(state, alerts=known, over=over, grouped=0.0), changes


def _known(alert: Alert) -> Alert:
    return _replace(alert, notified_level=alert.level, waits=False, quiet=0.0) if alert.waits else alert


def _last_periods(counts: dict[str, int], period: str) -> dict[str, int]:
    periods = {*sorted(counts)[-_PERIODS:], period}
    return {name: count for name, count in counts.items() if name in periods}

"""Alerts after an evaluation: a pure function of the state, the findings and the time.

An alert is pending until it lasted as long as its rule requires, fires once, and resolves when it was absent as long.
Time counts from evaluation to evaluation, never backwards, so that a wrong clock does no lasting harm.
A firing alert is notified once, then reminded a few times, within a budget; beyond it there is one digest a day.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from cumulant.alerting.alert_state import Alert, AlertChange, AlertsState, Finding, Scope, alert_id, elapsed, is_silent
from cumulant.alerting.policy import LEVELS, Level, Policy, Rule, above, highest

_replace = msgspec.structs.replace
#: ended alerts that are stored; the events have all
_KEPT = 100
_DAY = 86400.0
#: periods of the budget that are remembered, for a clock that is set back
_PERIODS = 3


def decide(
    state: AlertsState,
    findings: Iterable[Finding],
    at: datetime,
    *,
    policy: Policy,
    examined: Collection[Scope] | None = None,
    now: datetime | None = None,
) -> tuple[AlertsState, tuple[AlertChange, ...]]:
    """The state after an evaluation, and its changes, in the order of their notifications.

    `at`: the evaluation, in the time of the data; `now`: the present, for budgets, reminders and silences. `examined`:
    the evaluated models and rules, others do not resolve; None: all. Without findings and examined rules, the changes
    are due digests and reminders.
    """
    by_key, step = merged(findings), _Evaluation(at, now or at, policy)
    scopes = None if examined is None else {*examined, *(finding.scope for finding in by_key.values())}
    alerts: dict[str, Alert] = {}
    over, serial = list(state.over), state.serial
    for key, alert in state.alerts.items():
        is_examined = scopes is None or alert.finding.scope in scopes or step.rule(alert.finding).level is None
        after = step.again(alert, by_key.get(key)) if is_examined else alert
        if after is not None and after.status == "resolved":
            over.append(after)
        elif after is not None:
            alerts[key] = after
    for key, finding in by_key.items():
        if key not in state.alerts and step.rule(finding).level is not None:
            serial += 1
            alerts[key] = step.first(finding, serial)
    between = _replace(state, alerts=alerts, over=tuple(over), serial=serial)
    after_messages, messages = notify_due(between, step.now, policy)
    return _replace(after_messages, over=_newest(after_messages.over), at=step.now), (*step.changes, *messages)


def merged(findings: Iterable[Finding]) -> dict[str, Finding]:
    """One finding a key: of several the last one's words, the highest level and the earliest beginning."""
    by_key: dict[str, Finding] = {}
    for finding in findings:
        before = by_key.get(finding.key)
        if before is not None:
            level = None if before.level is finding.level is None else highest(before.level, finding.level)
            finding = _replace(finding, level=level, since=min(before.since, finding.since))  # noqa: PLW2901 - the same finding
        by_key[finding.key] = finding
    return by_key


class _Evaluation:
    def __init__(self, at: datetime, now: datetime, policy: Policy) -> None:
        self.at, self.now, self._policy = at, now, policy
        self.changes: list[AlertChange] = []

    def rule(self, finding: Finding) -> Rule:
        return self._policy.rule(finding.rule)

    def first(self, finding: Finding, serial: int) -> Alert:
        """The alert of a finding that is new."""
        level = highest(self.rule(finding).level, finding.level)
        name = alert_id(finding, self.at, serial)
        return self._fired(Alert(id=name, level=level, finding=finding, began=self.at, seen=self.at))

    def again(self, alert: Alert, finding: Finding | None) -> Alert | None:
        """The alert after its rule was evaluated again; None for a pending one that is absent."""
        if finding is None or self.rule(finding).level is None:
            return None if alert.status == "pending" else self._absent(alert)
        after = _replace(
            alert,
            finding=_replace(finding, since=min(alert.finding.since, finding.since)),
            level=highest(self.rule(finding).level, finding.level, alert.level),
            pending_for=alert.pending_for + elapsed(alert.seen, self.at),
            seen=self.at,
            absent=None,
            clear=0.0,
        )
        if alert.status == "firing" and above(after.level, alert.level):
            self._change("raised", after, was=alert.level)
        return self._fired(after)

    def _fired(self, alert: Alert) -> Alert:
        """The alert, firing where it was present for long enough."""
        if alert.status == "firing" or alert.pending_for < self.rule(alert.finding).pending_for:
            return alert
        alert = _replace(alert, status="firing", fired=self.now)
        self._change("fired", alert)
        return alert

    def _absent(self, alert: Alert) -> Alert:
        """The alert, over where it was absent for long enough or its rule is off."""
        rule = self.rule(alert.finding)
        clear = alert.clear + elapsed(alert.absent, self.at)
        alert = _replace(alert, absent=self.at, clear=clear)
        if clear < rule.resolve_after and rule.level is not None:
            return alert
        alert = _replace(alert, status="resolved", resolved=self.now)
        self._change("resolved", alert)
        if alert.notified_level is not None:
            self._change("cleared", alert)
        return alert

    def _change(
        self, what: Literal["fired", "raised", "resolved", "cleared"], alert: Alert, was: Level | None = None
    ) -> None:
        self.changes.append(AlertChange(what=what, alerts=(alert,), at=self.now, was=was))


def _newest(over: Sequence[Alert]) -> tuple[Alert, ...]:
    """Bounded, and never without one that the next digest lists."""
    extra = len(over) - _KEPT
    return tuple(alert for place, alert in enumerate(over) if place >= extra or alert.waits)


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

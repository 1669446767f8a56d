"""Alerts after an evaluation: a pure function of the state, the findings and the time.

An alert is pending until it lasted as long as its rule requires, fires once, and resolves when it was absent as long.
Time counts from evaluation to evaluation, never backwards, so that a wrong clock does no lasting harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from cumulant.alerting.alert_state import Alert, AlertChange, AlertsState, Finding, Scope, alert_id, elapsed
from cumulant.alerting.notification_budget import notify_due
from cumulant.alerting.policy import Level, Policy, Rule, above, highest

_replace = msgspec.structs.replace
#: ended alerts that are stored; the events have all
_KEPT = 100


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

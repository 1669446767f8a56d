"""What follows from a look: pure, a function of the state, the findings and the time.

An alert is pending until it was seen for as long as its rule asks, fires once, and is over by itself when it was not
seen for as long. Time counts from look to look and never backwards, so that a clock that is set back changes nothing
and one that jumps ahead can only stand for one long wait between two looks that both saw the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import msgspec

from cumulant.monitoring.alerts.policy import Policy, above, highest
from cumulant.monitoring.alerts.state import Alert, Change, Finding, Scope, State, elapsed, identity
from cumulant.monitoring.alerts.telling import tell

_replace = msgspec.structs.replace
#: ended alerts that are remembered; the events tell of all
_KEPT = 100


def decide(
    state: State, findings: Iterable[Finding], at: datetime, *, policy: Policy, looked: Collection[Scope] | None = None
) -> tuple[State, tuple[Change, ...]]:
    """The state after a look, and what it changed, in the order in which it is to be told.

    `looked`: the models and rules that were examined, so that what was not examined is not taken for being over; None:
    all. With no findings and nothing looked at, it tells what has become due: digests and reminders.
    """
    found = merged(findings)
    scopes = None if looked is None else {*looked, *(one.scope for one in found.values())}
    changes: list[Change] = []
    alerts: dict[str, Alert] = {}
    over, serial = list(state.over), state.serial
    for key, alert in state.alerts.items():
        examined = scopes is None or alert.finding.scope in scopes
        off = policy.rule(alert.finding.rule).level is None
        after = _seen(alert, found.get(key), at, policy, changes) if examined or off else alert
        if after is not None and after.status == "resolved":
            over.append(after)
        elif after is not None:
            alerts[key] = after
    for key, finding in found.items():
        if key not in state.alerts and policy.rule(finding.rule).level is not None:
            serial += 1
            alerts[key] = _opened(finding, at, serial, policy, changes)
    between = _replace(state, alerts=alerts, over=tuple(over), serial=serial)
    told, said = tell(between, at, policy)
    return _replace(told, over=_newest(told.over), at=at), (*changes, *said)


def merged(findings: Iterable[Finding]) -> dict[str, Finding]:
    """One finding a key: of several the last one's words, the highest level and the earliest beginning."""
    found: dict[str, Finding] = {}
    for one in findings:
        before = found.get(one.key)
        if before is not None:
            level = None if before.level is one.level is None else highest(before.level, one.level)
            one = _replace(one, level=level, since=min(before.since, one.since))  # noqa: PLW2901 - the same finding
        found[one.key] = one
    return found


def _opened(finding: Finding, at: datetime, serial: int, policy: Policy, changes: list[Change]) -> Alert:
    level = highest(policy.rule(finding.rule).level, finding.level)
    alert = Alert(id=identity(finding, at, serial), level=level, finding=finding, began=at, seen=at)
    return _fired(alert, at, policy, changes)


def _fired(alert: Alert, at: datetime, policy: Policy, changes: list[Change]) -> Alert:
    """The alert, firing where it was seen for long enough."""
    if alert.status == "firing" or alert.held < policy.rule(alert.finding.rule).held:
        return alert
    alert = _replace(alert, status="firing", fired=at)
    changes.append(Change(what="fired", alerts=(alert,), at=at))
    return alert


def _seen(alert: Alert, finding: Finding | None, at: datetime, policy: Policy, changes: list[Change]) -> Alert | None:
    """The alert after a look of its rule; None where it was pending and is gone."""
    rule = policy.rule(alert.finding.rule)
    if finding is None or rule.level is None:
        return (
            None if alert.status == "pending" else _absent(alert, at, rule.resolve_after, rule.level is None, changes)
        )
    level = highest(rule.level, finding.level, alert.level)
    since = min(alert.finding.since, finding.since)
    after = _replace(
        alert,
        finding=_replace(finding, since=since),
        level=level,
        held=alert.held + elapsed(alert.seen, at),
        seen=at,
        absent=None,
        clear=0.0,
    )
    if alert.status == "firing" and above(level, alert.level):
        changes.append(Change(what="raised", alerts=(after,), at=at, was=alert.level))
    return _fired(after, at, policy, changes)


def _absent(alert: Alert, at: datetime, needed: float, off: bool, changes: list[Change]) -> Alert:
    clear = alert.clear + elapsed(alert.absent, at)
    if clear < needed and not off:
        return _replace(alert, absent=at, clear=clear)
    alert = _replace(alert, status="resolved", absent=at, clear=clear, resolved=at)
    changes.append(Change(what="resolved", alerts=(alert,), at=at))
    if alert.told is not None:
        changes.append(Change(what="cleared", alerts=(alert,), at=at))
    return alert


def _newest(over: Sequence[Alert]) -> tuple[Alert, ...]:
    """Bounded, and never without one that the next digest tells."""
    extra = len(over) - _KEPT
    return tuple(alert for place, alert in enumerate(over) if place >= extra or alert.waits)

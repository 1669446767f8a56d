"""Acknowledgements and silences of alerts."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest

if TYPE_CHECKING:
    from cumulant.alerting.alert_state import Alert, AlertsState

#: ended silences that are kept, for a clock that is set back and for whoever asks
_KEPT = 20


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """No notification of alerts that match, until a moment, but that a known one is resolved.

    Patterns with `*` and `?`.
    """

    id: str
    model: str = "*"
    rule: str = "*"
    subject: str = "*"
    until: datetime
    by: str
    reason: str = ""

    def matches(self, alert: Alert, at: datetime) -> bool:
        finding = alert.finding
        named = ((finding.model, self.model), (finding.rule, self.rule), (finding.subject, self.subject))
        return at < self.until and all(fnmatchcase(name, pattern) for name, pattern in named)


def is_silent(state: AlertsState, alert: Alert, at: datetime) -> bool:
    return any(silence.matches(alert, at) for silence in state.silences)


def silenced(state: AlertsState, silence: Silence, at: datetime) -> AlertsState:
    """The state with one silence more; of those that have ended the newest are kept."""
    running = [earlier for earlier in state.silences if earlier.until > at]
    ended = [earlier for earlier in state.silences if earlier.until <= at][-_KEPT:]
    named = msgspec.structs.replace(silence, id=digest([state.serial, at.isoformat(), "silence"])[:8])
    return msgspec.structs.replace(state, silences=(*ended, *running, named), serial=state.serial + 1)


def unsilenced(state: AlertsState, name: str) -> AlertsState:
    """The state without that silence."""
    return msgspec.structs.replace(state, silences=tuple(silence for silence in state.silences if silence.id != name))


def acknowledged(state: AlertsState, key: str, by: str) -> AlertsState:
    """Somebody knows of an alert: no reminders, and no message but that it is over or became worse."""
    alert = state.alerts[key]
    known = msgspec.structs.replace(alert, acknowledged=by, notified_level=alert.level, waits=False)
    return msgspec.structs.replace(state, alerts={**state.alerts, key: known})

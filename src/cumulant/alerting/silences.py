"""Acknowledgements and silences of alerts."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.alerting.alert_state import Alert, AlertsState, Silence
from cumulant.core.ids import digest

#: ended silences that are stored
_KEPT = 20


def is_silent(state: AlertsState, alert: Alert, at: datetime) -> bool:
    return any(silence.matches(alert, at) for silence in state.silences)


def silenced(state: AlertsState, silence: Silence, at: datetime) -> AlertsState:
    """The state with one silence more; of those that have ended the newest are kept."""
    running = [earlier for earlier in state.silences if earlier.until > at]
    ended = [earlier for earlier in state.silences if earlier.until <= at][-_KEPT:]
    named = msgspec.structs.replace(silence, id=digest([state.serial, at.isoformat(), "silence"])[:8])
    return msgspec.structs.replace(state, silences=(*ended, *running, named), serial=state.serial + 1)


def unsilenced(state: AlertsState, name: str) -> AlertsState:
    return msgspec.structs.replace(state, silences=tuple(silence for silence in state.silences if silence.id != name))


def acknowledged(state: AlertsState, key: str, by: str) -> AlertsState:
    """Somebody knows of an alert: no reminders, and no message but that it is over or became worse."""
    alert = state.alerts[key]
    known = msgspec.structs.replace(alert, acknowledged=by, notified_level=alert.level, waits=False)
    return msgspec.structs.replace(state, alerts={**state.alerts, key: known})

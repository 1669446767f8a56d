"""Alerts: findings become a few messages that say what moved, and end by themselves.

`decide` is pure: what fires, what is told to whom, and what is over follows from the state, the findings and the time.
"""

from __future__ import annotations

from cumulant.monitoring.alerts.decide import decide
from cumulant.monitoring.alerts.events import facts
from cumulant.monitoring.alerts.policy import Policy, policy
from cumulant.monitoring.alerts.silences import Silence, acknowledged, silenced, unsilenced
from cumulant.monitoring.alerts.spec import AlertsSpec
from cumulant.monitoring.alerts.state import Alert, Change, Finding, Scope, State
from cumulant.monitoring.alerts.words import message, sentence

__all__ = [
    "Alert",
    "AlertsSpec",
    "Change",
    "Finding",
    "Policy",
    "Scope",
    "Silence",
    "State",
    "acknowledged",
    "decide",
    "facts",
    "message",
    "policy",
    "sentence",
    "silenced",
    "unsilenced",
]

"""Alerts and silences as they are stored between two evaluations."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from cumulant.alerting.policy import Level
from cumulant.core.ids import canonical, digest

#: a model and a rule, evaluated together
Scope = tuple[str, str]
Status = Literal["pending", "firing", "resolved"]


#: ended silences that are stored
_KEPT = 20


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of an evaluation.

    `moved`: what changed and how much ("missing values of fare rose from 0.1% to 38%"), without the time; `since`: when
    it began, or with `at_least` perhaps before; `kind`: the likely `data_fault`, `covariate`, `prior`, `concept`,
    `volume`, `quality` or `feed`; `cost` and `next`: sentences, or empty; `level` raises the rule's own.
    """

    model: str
    rule: str
    subject: str
    moved: str
    since: datetime
    kind: str = ""
    cost: str = ""
    next: str = ""
    level: Level | None = None
    at_least: bool = False

    @property
    def scope(self) -> Scope:
        return self.model, self.rule

    @property
    def key(self) -> str:
        """One alert at a time is of the same model, rule and subject."""
        return canonical([self.model, self.rule, self.subject]).decode()


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert from its first evaluation to its end. Spans are in seconds, and sums over evaluations.

    `began`, `seen` and `absent`: moments of evaluations; `fired`, `resolved`: of the present. `pending_for`, `clear`:
    how long it was present, and absent since `absent`. `notified_level`: the highest notified; `waits`: it comes with
    the next digest; `quiet`: since the last notification.
    """

    id: str
    status: Status = "pending"
    level: Level
    finding: Finding
    began: datetime
    seen: datetime
    pending_for: float = 0.0
    fired: datetime | None = None
    absent: datetime | None = None
    clear: float = 0.0
    resolved: datetime | None = None
    notified_level: Level | None = None
    waits: bool = False
    quiet: float = 0.0
    reminders: int = 0
    acknowledged: str | None = None


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Suppression of notifications of matching alerts (patterns: `*`, `?`) until a moment, except their resolution."""

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


class AlertsState(msgspec.Struct, frozen=True, kw_only=True):
    """All alerts of a project. `alerts`: pending and firing ones by the key of their finding; `over`: the newest last.

    `spent`: notifications by period of the budget; `grouped`: seconds that the digest has waited.
    """

    alerts: dict[str, Alert] = {}
    over: tuple[Alert, ...] = ()
    silences: tuple[Silence, ...] = ()
    spent: dict[str, int] = {}
    grouped: float = 0.0
    at: datetime | None = None
    serial: int = 0

    @property
    def firing(self) -> list[Alert]:
        return [alert for alert in self.alerts.values() if alert.status == "firing"]

    @property
    def waiting(self) -> list[Alert]:
        """What the next digest lists, ended ones first."""
        return [alert for alert in (*self.over, *self.alerts.values()) if alert.waits]


class AlertChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an evaluation.

    Recorded: `fired`, `raised`, `resolved`. Notified: `notified`, again at a higher level, `reminded`, `cleared`,
    `digest`. `alerts`: those of a digest, else one.
    """

    what: Literal["fired", "raised", "resolved", "notified", "reminded", "cleared", "digest"]
    alerts: tuple[Alert, ...]
    at: datetime
    #: the level before it was raised
    was: Level | None = None

    @property
    def alert(self) -> Alert:
        return self.alerts[0]

    @property
    def to_people(self) -> bool:
        return self.what in ("notified", "reminded", "cleared", "digest")


def alert_id(finding: Finding, at: datetime, serial: int) -> str:
    """A short name of an alert, unique in one state."""
    return digest([finding.key, at.isoformat(), serial])[:10]


def elapsed(since: datetime | None, at: datetime) -> float:
    """Seconds from one evaluation to the next; none where the clock was set back."""
    return 0.0 if since is None else max(0.0, (at - since).total_seconds())


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

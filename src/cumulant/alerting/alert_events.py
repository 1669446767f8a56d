"""What alerts report. Words and figures, never rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from cumulant.alerting.messages import sentence
from cumulant.core.events import Fact

if TYPE_CHECKING:
    from cumulant.alerting.alert_state import AlertChange


class AlertFact(Fact, frozen=True, kw_only=True):
    """What happened to one alert."""

    alert: str
    model: str
    rule: str
    subject: str


class AlertFired(AlertFact, frozen=True, kw_only=True):
    """A finding lasted for as long as its rule requires."""

    kind: ClassVar[str] = "alert.fired"
    level: str
    text: str


class AlertRaised(AlertFact, frozen=True, kw_only=True):
    """Its level rose."""

    kind: ClassVar[str] = "alert.raised"
    level: str
    was: str
    text: str


class AlertResolved(AlertFact, frozen=True, kw_only=True):
    """Its finding was absent for as long as its rule requires, or its rule was turned off."""

    kind: ClassVar[str] = "alert.resolved"
    level: str
    text: str


class AlertAcknowledged(AlertFact, frozen=True, kw_only=True):
    """A person acknowledged it."""

    kind: ClassVar[str] = "alert.acknowledged"


class AlertsSilenced(Fact, frozen=True, kw_only=True):
    """Alerts that match are not notified until then."""

    kind: ClassVar[str] = "alert.silenced"
    silence: str
    model: str
    rule: str
    subject: str
    until: str


class SilenceEnded(Fact, frozen=True, kw_only=True):
    """A silence was removed before its time."""

    kind: ClassVar[str] = "alert.silence_ended"
    silence: str


class MessageDelivered(Fact, frozen=True, kw_only=True):
    """A receiver took a message, after so many failures. `note`: what a reader should know of it."""

    kind: ClassVar[str] = "notify.delivered"
    receiver: str
    message: str
    title: str
    failures: int
    note: str = ""


class ReceiverFailed(Fact, frozen=True, kw_only=True):
    """A receiver did not take a message; it is tried again, and reported here once until it answers."""

    kind: ClassVar[str] = "notify.failed"
    receiver: str
    message: str
    fault: str


class MessageRefused(Fact, frozen=True, kw_only=True):
    """A receiver refused a message so often that it is set aside; others go on, and it is tried once a day."""

    kind: ClassVar[str] = "notify.refused"
    receiver: str
    message: str
    title: str
    fault: str


class MessagesLeftOut(Fact, frozen=True, kw_only=True):
    """Messages that a receiver will not get: too many waited, nothing names it any more, or they were dropped."""

    kind: ClassVar[str] = "notify.left_out"
    receiver: str
    messages: int
    reason: str


def alert_facts(changes: Iterable[AlertChange]) -> Iterator[Fact]:
    """The events of changes; a notification has its event when it is delivered."""
    for change in changes:
        finding = change.alert.finding
        named = {"alert": change.alert.id, "model": finding.model, "rule": finding.rule, "subject": finding.subject}
        named |= {"level": change.alert.level, "text": sentence(change.alert)}
        if change.what == "fired":
            yield AlertFired(**named)
        elif change.what == "raised":
            yield AlertRaised(was=change.was or "", **named)
        elif change.what == "resolved":
            yield AlertResolved(**named)

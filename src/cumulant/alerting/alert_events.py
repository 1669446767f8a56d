"""What alerts report. Words and figures, never rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from cumulant.alerting.messages import sentence
from cumulant.core.events import Fact

if TYPE_CHECKING:
    from cumulant.alerting.alert_state import AlertChange


class AlertFired(Fact, frozen=True, kw_only=True):
    """Something was seen for as long as its rule asks."""

    kind: ClassVar[str] = "alert.fired"
    alert: str
    model: str
    rule: str
    subject: str
    level: str
    text: str


class AlertRaised(Fact, frozen=True, kw_only=True):
    """It matters more than it did."""

    kind: ClassVar[str] = "alert.raised"
    alert: str
    model: str
    rule: str
    subject: str
    level: str
    was: str
    text: str


class AlertResolved(Fact, frozen=True, kw_only=True):
    """It was not seen for as long as its rule asks, or its rule was turned off."""

    kind: ClassVar[str] = "alert.resolved"
    alert: str
    model: str
    rule: str
    subject: str
    level: str
    text: str


class AlertAcknowledged(Fact, frozen=True, kw_only=True):
    """Somebody said that they know."""

    kind: ClassVar[str] = "alert.acknowledged"
    alert: str
    model: str
    rule: str
    subject: str


class AlertsSilenced(Fact, frozen=True, kw_only=True):
    """Alerts that match are not told to people until then."""

    kind: ClassVar[str] = "alert.silenced"
    silence: str
    model: str
    rule: str
    subject: str
    until: str


class SilenceEnded(Fact, frozen=True, kw_only=True):
    """Somebody took a silence away before its time."""

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
    """A receiver did not take a message; it is tried again, and told here once until it answers."""

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
    """Messages that a receiver will not get: too many waited, nothing names it any more, or somebody dropped them."""

    kind: ClassVar[str] = "notify.left_out"
    receiver: str
    messages: int
    reason: str


def alert_facts(changes: Iterable[AlertChange]) -> Iterator[Fact]:
    """What is to be told of changes; what is sent to people is told when it was delivered."""
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

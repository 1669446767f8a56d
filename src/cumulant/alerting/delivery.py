"""Delivery to one receiver as pure decisions by what waits, the receiver's answers, and the time.

A refusal of one message is recorded with it, and the next is sent; a refusal of any message pauses the receiver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from cumulant.alerting.alert_events import MessageDelivered, MessageRefused, ReceiverFailed
from cumulant.alerting.alert_state import AlertChange, AlertsState
from cumulant.alerting.messages import message as message_of
from cumulant.core.errors import CumulantError, OverloadedError, TerminalError
from cumulant.core.events import Fact
from cumulant.ports.notifier import Message

#: messages that wait for one receiver
MOST = 200
#: refusals after which a message is set aside, and how long it waits before and after that
TRIES, _SOON, _ONCE_IN_A_WHILE = 3, timedelta(minutes=5), timedelta(days=1)
#: pauses of a receiver after failures: the first, the longest, and the least one after a refusal of any message
_FIRST, LONGEST_PAUSE, _REFUSED = timedelta(seconds=10), timedelta(hours=1), timedelta(minutes=5)
#: a receiver that keeps alerts may have forgotten them: those that fire are repeated
_AGAIN = timedelta(minutes=5)
#: messages refused one after the other, and none taken: the receiver refuses whatever it is sent
_ALL = 3
_REFUSED_NOTICE = "refused"


class ReceiverHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`failures` in a row; `notified`: when a receiver that keeps alerts last got all that fire."""

    failures: int = 0
    failing_since: datetime | None = None
    retry: datetime | None = None
    fault: str = ""
    delivered: datetime | None = None
    notified: datetime | None = None


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way to a receiver; `key` is its row's, empty where it has none."""

    key: str
    message: Message


class MessageRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """How often a receiver refused a message since when, its last answer, and when it is tried again."""

    tries: int
    since: datetime
    retry: datetime
    fault: str

    @property
    def aside(self) -> bool:
        """Whether it was refused so often that it is tried once a day."""
        return self.tries >= TRIES

    def is_due(self, now: datetime) -> bool:
        """Whether it may be tried. A clock that was set back holds it up no longer than the longest pause."""
        return now >= self.retry or self.retry - now > _ONCE_IN_A_WHILE


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages a receiver will not get, and when the first of them was made."""

    messages: int
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of delivery. `refused_in_a_row`: messages since the receiver took one; `any_taken`: in this turn."""

    project: str
    receiver: str
    keeps_state: bool
    health: ReceiverHealth
    refused_in_a_row: int = 0
    any_taken: bool = False

    @property
    def refuses_all(self) -> bool:
        """Whether the receiver, and not the messages, is at fault."""
        return self.refused_in_a_row >= _ALL and not self.any_taken


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The receiver took a message. `repeated`: it repeats an alert that fires, and is in no outbox."""

    entry: OutboxEntry
    note: str = ""
    repeated: bool = False


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The receiver refused a message. `waiting`: it is still in the outbox; `earlier`: its refusals before."""

    entry: OutboxEntry
    fault: str
    waiting: bool
    earlier: MessageRefusal | None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The receiver took nothing. `message`: the one that was sent."""

    error: CumulantError
    fault: str
    message: Message | None


@dataclass(frozen=True, kw_only=True)
class Actions:
    """What is stored with the receiver's state. `refusal`: of the message; `notices`: new messages to the receiver."""

    facts: tuple[Fact, ...] = ()
    refusal: MessageRefusal | None = None
    notices: tuple[Message, ...] = ()
    clear_left_out: bool = False
    retry_refused: bool = False


def decide_delivery(turn: Turn, attempt: Taken | Refused | Failed, now: datetime) -> tuple[Turn, Actions]:
    """The turn after an attempt to send a message, and what is stored."""
    match attempt:
        case Taken():
            return _after_taken(turn, attempt, now)
        case Refused():
            return _after_refused(turn, attempt, now)
        case Failed():
            return _after_failed(turn, attempt, now)


def _after_taken(turn: Turn, taken: Taken, now: datetime) -> tuple[Turn, Actions]:
    """After a time in which the receiver took nothing, what it refused then is tried at once."""
    health = ReceiverHealth(delivered=now, notified=turn.health.notified)
    after = replace(turn, health=health, refused_in_a_row=0, any_taken=True)
    if taken.repeated:
        return after, Actions()
    sent, failures = taken.entry.message, turn.health.failures
    fact = MessageDelivered(
        receiver=turn.receiver, message=sent.key, title=sent.title, failures=failures, note=taken.note
    )
    clear = not taken.entry.key or turn.keeps_state
    return after, Actions(facts=(fact,), clear_left_out=clear, retry_refused=failures > 0)


def _after_refused(turn: Turn, refused: Refused, now: datetime) -> tuple[Turn, Actions]:
    refusal = _next_refusal(refused.earlier, refused.fault, now) if refused.waiting else None
    if refusal is None or refusal.tries <= TRIES:
        turn = replace(turn, refused_in_a_row=turn.refused_in_a_row + 1)
    if refusal is None or refusal.tries != TRIES:
        return turn, Actions(refusal=refusal)
    message = refused.entry.message
    fact = MessageRefused(receiver=turn.receiver, message=message.key, title=message.title, fault=refused.fault)
    notice = None if turn.keeps_state else _refused_notice(turn.project, message, refused.fault, now)
    return turn, Actions(facts=(fact,), refusal=refusal, notices=() if notice is None else (notice,))


def _next_refusal(earlier: MessageRefusal | None, fault: str, now: datetime) -> MessageRefusal:
    tries = earlier.tries + 1 if earlier else 1
    pause = _SOON * tries if tries < TRIES else _ONCE_IN_A_WHILE
    return MessageRefusal(tries=tries, since=earlier.since if earlier else now, retry=now + pause, fault=fault)


def _after_failed(turn: Turn, failed: Failed, now: datetime) -> tuple[Turn, Actions]:
    """An event reports the first failure of a row of them."""
    key = failed.message.key if failed.message else ""
    fact = ReceiverFailed(receiver=turn.receiver, message=key, fault=failed.fault)
    after = replace(turn, health=after_failure(turn.health, failed.error, failed.fault, now))
    return after, Actions(facts=() if turn.health.failures else (fact,))


def after_failure(health: ReceiverHealth, error: CumulantError, fault: str, now: datetime) -> ReceiverHealth:
    """A pause until the next try: twice as long as before, at most an hour."""
    failures = health.failures + 1
    pause = min(_FIRST * 2 ** min(failures - 1, 20), LONGEST_PAUSE)
    if isinstance(error, OverloadedError):
        pause = timedelta(seconds=error.retry_after)
    elif isinstance(error, TerminalError):
        pause = max(pause, _REFUSED)
    return ReceiverHealth(
        failures=failures,
        failing_since=health.failing_since or now,
        retry=now + pause,
        fault=fault,
        delivered=health.delivered,
        notified=health.notified,
    )


def entries_due(
    entries: Iterable[OutboxEntry], refusals: Mapping[str, MessageRefusal], now: datetime
) -> list[OutboxEntry]:
    """What is sent now: the oldest first, and last what was set aside and is tried once more."""
    due = [entry for entry in entries if entry.key not in refusals or refusals[entry.key].is_due(now)]
    return sorted(due, key=lambda entry: (entry.key in refusals and refusals[entry.key].aside, entry.key))


def entries_beyond(
    entries: Sequence[OutboxEntry], refusals: Mapping[str, MessageRefusal], *, keeps_state: bool
) -> list[OutboxEntry]:
    """The entries to drop where more than MOST wait: refused ones, then the oldest, critical ones last.

    A receiver that keeps state first drops firing alerts, as they are repeated.
    """

    def importance(entry: OutboxEntry) -> tuple[bool, bool, str]:
        refusal, ended = refusals.get(entry.key), entry.message.status == "resolved"
        last = ended if keeps_state else entry.message.level == "critical"
        return refusal is None or not refusal.aside, last, entry.key

    return sorted(entries, key=importance)[: len(entries) - MOST]


def repeated_messages(
    health: ReceiverHealth, state: AlertsState, refused: Iterable[Message], now: datetime
) -> list[Message]:
    """What fires, for a receiver that keeps alerts and did not get it for a while; not what it refuses anyway."""
    if health.notified is not None and abs(now - health.notified) < _AGAIN:
        return []
    keys = {message.key for message in refused}
    messages = [message_of(AlertChange(what="fired", alerts=(alert,), at=now)) for alert in state.firing]
    return [message for message in messages if message.key not in keys]


def is_past(message: Message, state: AlertsState) -> bool:
    """Whether a message of an alert is out of date: the alert ended or rose since, or fires again."""
    if message.status == "resolved":
        named = (message.model, message.rule, message.subject)
        return any((alert.finding.model, alert.finding.rule, alert.finding.subject) == named for alert in state.firing)
    return not any(alert.id == message.detail.get("id") and alert.level == message.level for alert in state.firing)


def left_out_notice(project: str, missed: LeftOut, now: datetime) -> Message:
    """That so many messages were left out, because the receiver took none for long."""
    count, since = missed.messages, missed.since
    text = (
        f"{count} messages since {since:%Y-%m-%d %H:%M} UTC were left out, because this receiver took none for long. "
        "`cumulant alerts list` shows what fires, `cumulant events list --kind alert.fired` what did."
    )
    title = f"warning: {count} messages of {project} were left out"
    key = f"left-out/{since.isoformat()}/{count}"
    return _notice(key, project=project, rule="left_out", title=title, text=text, now=now)


def _refused_notice(project: str, refused: Message, fault: str, now: datetime) -> Message | None:
    """Short, so that the receiver may take this one. None where it refused such a notice."""
    if refused.rule == _REFUSED_NOTICE and refused.kind == "notice":
        return None
    text = (
        f"This receiver refuses a message of {refused.at:%Y-%m-%d %H:%M} UTC: {fault[:200]}. "
        "`cumulant alerts list` shows which and what fires; `cumulant alerts retry` sends it again."
    )
    title = f"warning: a message of {project} cannot be delivered"
    key = f"refused/{refused.key}"
    return _notice(key, project=project, rule=_REFUSED_NOTICE, title=title, text=text, now=now)


def _notice(key: str, *, project: str, rule: str, title: str, text: str, now: datetime) -> Message:
    return Message(
        key=key,
        kind="notice",
        status="notice",
        level="warning",
        model=project,
        rule=rule,
        subject="messages",
        title=title,
        text=text,
        at=now,
    )

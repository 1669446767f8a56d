"""Messages that wait for their receivers: rows of the journal, written in the transaction of what they tell.

A message is one row a receiver. It is gone once the receiver took it. One that the receiver refuses, and not because of
who sends it, has a second row with its tries, and holds up no other. Of a receiver that takes nothing the rows are
bounded: what it refuses goes first, then the oldest, critical ones last, and how many went is told when it is back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.alerting.alert_events import MessagesLeftOut
from cumulant.core.events import Actor
from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Row, Transaction
    from cumulant.project.notifiers import Receiver

OUTBOX, LEFT_OUT, REFUSED = "notify_outbox", "notify_left_out", "notify_refused"
ACTOR = Actor("service:notifier")
#: messages that wait for one receiver
MOST = 200
#: refusals after which a message is set aside, and how long it waits before and after that
TRIES, _SOON, _ONCE_IN_A_WHILE = 3, timedelta(minutes=5), timedelta(days=1)


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way to a receiver; `key` is its row's."""

    key: str
    message: Message


class MessageRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """How often a receiver refused a message since when, what it said last, and when it is asked again."""

    tries: int
    since: datetime
    retry: datetime
    fault: str

    @property
    def aside(self) -> bool:
        """Whether it was refused so often that trying again is hardly worth it."""
        return self.tries >= TRIES

    def is_due(self, now: datetime) -> bool:
        """Whether it may be tried. A clock that was set back holds it up no longer than the longest pause."""
        return now >= self.retry or self.retry - now > _ONCE_IN_A_WHILE


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages a receiver will not get, and when the first of them was made."""

    messages: int
    since: datetime


def put(transaction: Transaction, receivers: Iterable[Receiver], messages: Sequence[Message]) -> None:
    """Hand messages over, in the caller's transaction."""
    for receiver in receivers:
        if messages:
            _put(transaction, receiver, messages)


def _put(transaction: Transaction, receiver: Receiver, messages: Sequence[Message]) -> None:
    waiting = [_entry(row) for row in transaction.rows(OUTBOX, f"{receiver.name}/")]
    last = int(waiting[-1].key.rpartition("/")[2]) if waiting else 0
    known = {entry.message.key for entry in waiting}
    for message in messages:
        if message.key in known:
            continue
        last += 1
        known.add(message.key)
        entry = OutboxEntry(key=f"{receiver.name}/{last:012d}", message=message)
        transaction.put(OUTBOX, entry.key, cast("dict[str, object]", msgspec.to_builtins(message)))
        waiting.append(entry)
    if len(waiting) > MOST:
        _leave_out(transaction, receiver, waiting)


def _leave_out(transaction: Transaction, receiver: Receiver, waiting: list[OutboxEntry]) -> None:
    """What a receiver can miss best goes first: one that keeps alerts is told again of what fires."""
    aside = {key for key, refusal in _refusals(transaction.rows(REFUSED, f"{receiver.name}/")).items() if refusal.aside}

    def dear(entry: OutboxEntry) -> tuple[bool, bool, str]:
        ended = entry.message.status == "resolved"
        last = ended if receiver.keeps_state else entry.message.level == "critical"
        return entry.key not in aside, last, entry.key

    gone = sorted(waiting, key=dear)[: len(waiting) - MOST]
    for entry in gone:
        take_out(transaction, entry.key)
    row = transaction.get(LEFT_OUT, receiver.name)
    before = None if row is None else msgspec.convert(row.value, LeftOut)
    first = min(entry.message.at for entry in gone)
    counts = LeftOut(
        messages=len(gone) + (before.messages if before else 0), since=min(first, before.since) if before else first
    )
    transaction.put(LEFT_OUT, receiver.name, cast("dict[str, object]", msgspec.to_builtins(counts)))
    if before is None:  # each further one would make an event for every message
        reason = f"more than {MOST} messages waited for it"
        transaction.emit(MessagesLeftOut(receiver=receiver.name, messages=len(gone), reason=reason))


def take_out(transaction: Transaction, key: str) -> None:
    """A message waits no more, and neither does what is known of its refusal."""
    transaction.delete(OUTBOX, key)
    transaction.delete(REFUSED, key)


def last(transaction: Transaction, receiver: str) -> OutboxEntry:
    """The newest of what waits for a receiver."""
    return _entry(transaction.rows(OUTBOX, f"{receiver}/")[-1])


def waiting(journal: Journal, receiver: str = "") -> list[OutboxEntry]:
    """What waits, the oldest first; of all receivers where none is named."""
    return [_entry(row) for row in journal.rows(OUTBOX, f"{receiver}/" if receiver else "")]


def left_out(journal: Journal, receiver: str) -> LeftOut | None:
    """What a receiver will not get, and was not told of yet."""
    row = journal.get(LEFT_OUT, receiver)
    return None if row is None else msgspec.convert(row.value, LeftOut)


def refusals(journal: Journal, receiver: str = "") -> dict[str, MessageRefusal]:
    """What is known of refused messages, by the key of their rows."""
    return _refusals(journal.rows(REFUSED, f"{receiver}/" if receiver else ""))


def due(journal: Journal, receiver: str, now: datetime) -> list[OutboxEntry]:
    """What is to be sent now: the oldest first, and last what was set aside and is tried once more."""
    known = refusals(journal, receiver)
    entries = [entry for entry in waiting(journal, receiver) if entry.key not in known or known[entry.key].is_due(now)]
    return sorted(entries, key=lambda entry: (entry.key in known and known[entry.key].aside, entry.key))


def refuse(transaction: Transaction, entry: OutboxEntry, fault: str, now: datetime) -> MessageRefusal | None:
    """Note that a receiver refused a message; None where it waits no more."""
    row, known = transaction.get(OUTBOX, entry.key), transaction.get(REFUSED, entry.key)
    if row is None or _entry(row).message.key != entry.message.key:
        return None
    before = None if known is None else msgspec.convert(known.value, MessageRefusal)
    tries = before.tries + 1 if before else 1
    pause = _SOON * tries if tries < TRIES else _ONCE_IN_A_WHILE
    after = MessageRefusal(tries=tries, since=before.since if before else now, retry=now + pause, fault=fault)
    _put_refusal(transaction, entry.key, after)
    return after


def retry_now(transaction: Transaction, keys: Iterable[str], now: datetime) -> None:
    """Have refused messages tried now, whatever their pauses."""
    for key in keys:
        row = transaction.get(REFUSED, key)
        if row is not None:
            _put_refusal(
                transaction, key, msgspec.structs.replace(msgspec.convert(row.value, MessageRefusal), retry=now)
            )


def _put_refusal(transaction: Transaction, key: str, refusal: MessageRefusal) -> None:
    transaction.put(REFUSED, key, cast("dict[str, object]", msgspec.to_builtins(refusal)))


def _refusals(rows: Iterable[Row]) -> dict[str, MessageRefusal]:
    return {row.key: msgspec.convert(row.value, MessageRefusal) for row in rows}


def _entry(row: Row) -> OutboxEntry:
    return OutboxEntry(key=row.key, message=msgspec.convert(row.value, Message))

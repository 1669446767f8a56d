"""Messages that wait for their receivers: rows of the journal, written in the transaction of what they tell.

A message is one row a receiver. It is gone once the receiver took it. Of a receiver that takes nothing the rows are
bounded: the oldest go first, critical ones last, and how many went is told when it is back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.core.events import Actor
from cumulant.monitoring.alerts.events import MessagesLeftOut
from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Row, Transaction
    from cumulant.project.notifiers import Receiver

OUTBOX, LEFT_OUT = "notify_outbox", "notify_left_out"
ACTOR = Actor("service:notifier")
#: messages that wait for one receiver
MOST = 200


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way to a receiver; `key` is its row's."""

    key: str
    message: Message


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
        entry = Entry(key=f"{receiver.name}/{last:012d}", message=message)
        transaction.put(OUTBOX, entry.key, cast("dict[str, object]", msgspec.to_builtins(message)))
        waiting.append(entry)
    if len(waiting) > MOST:
        _leave_out(transaction, receiver, waiting)


def _leave_out(transaction: Transaction, receiver: Receiver, waiting: list[Entry]) -> None:
    """What a receiver can miss best goes first: one that keeps alerts is told again of what fires."""

    def dear(entry: Entry) -> tuple[bool, str]:
        ended = entry.message.status == "resolved"
        return (ended if receiver.keeps_state else entry.message.level == "critical"), entry.key

    gone = sorted(waiting, key=dear)[: len(waiting) - MOST]
    for entry in gone:
        transaction.delete(OUTBOX, entry.key)
    row = transaction.get(LEFT_OUT, receiver.name)
    before = None if row is None else msgspec.convert(row.value, LeftOut)
    first = min(entry.message.at for entry in gone)
    left = LeftOut(
        messages=len(gone) + (before.messages if before else 0), since=min(first, before.since) if before else first
    )
    transaction.put(LEFT_OUT, receiver.name, cast("dict[str, object]", msgspec.to_builtins(left)))
    if before is None:  # each further one would make an event for every message
        reason = f"more than {MOST} messages waited for it"
        transaction.emit(MessagesLeftOut(receiver=receiver.name, messages=len(gone), reason=reason))


def waiting(journal: Journal, receiver: str = "") -> list[Entry]:
    """What waits, the oldest first; of all receivers where none is named."""
    return [_entry(row) for row in journal.rows(OUTBOX, f"{receiver}/" if receiver else "")]


def left_out(journal: Journal, receiver: str) -> LeftOut | None:
    """What a receiver will not get, and was not told of yet."""
    row = journal.get(LEFT_OUT, receiver)
    return None if row is None else msgspec.convert(row.value, LeftOut)


def _entry(row: Row) -> Entry:
    return Entry(key=row.key, message=msgspec.convert(row.value, Message))

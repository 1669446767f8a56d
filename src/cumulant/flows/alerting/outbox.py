"""Messages that wait for their receivers: rows of the journal, written in the transaction of their cause.

A message is one row a receiver until that takes it. A refused one has a second row with its tries, and does not hold up
others. Rows of a receiver that takes nothing are bounded; dropped ones are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.alerting.alert_events import MessagesLeftOut
from cumulant.alerting.delivery import MOST, LeftOut, MessageRefusal, OutboxEntry, entries_beyond, entries_due
from cumulant.core.events import Actor
from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Row, Transaction
    from cumulant.project.notifiers import Receiver

OUTBOX, LEFT_OUT, REFUSED = "notify_outbox", "notify_left_out", "notify_refused"
ACTOR = Actor("service:notifier")


def put(transaction: Transaction, receivers: Iterable[Receiver], messages: Sequence[Message]) -> None:
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
    known = _refusals(transaction.rows(REFUSED, f"{receiver.name}/"))
    gone = entries_beyond(waiting, known, keeps_state=receiver.keeps_state)
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
    """What a receiver will not get, and has no notice of yet."""
    row = journal.get(LEFT_OUT, receiver)
    return None if row is None else msgspec.convert(row.value, LeftOut)


def refusals(journal: Journal | Transaction, receiver: str = "") -> dict[str, MessageRefusal]:
    """What is known of refused messages, by the key of their rows."""
    return _refusals(journal.rows(REFUSED, f"{receiver}/" if receiver else ""))


def due(journal: Journal, receiver: str, now: datetime) -> list[OutboxEntry]:
    """What is sent to a receiver now, as `entries_due`."""
    return entries_due(waiting(journal, receiver), refusals(journal, receiver), now)


def waits(transaction: Transaction, entry: OutboxEntry) -> bool:
    """Whether a message is still in the outbox, and not another one under its key."""
    row = transaction.get(OUTBOX, entry.key) if entry.key else None
    return row is not None and _entry(row).message.key == entry.message.key


def refusal_of(transaction: Transaction, key: str) -> MessageRefusal | None:
    row = transaction.get(REFUSED, key)
    return None if row is None else msgspec.convert(row.value, MessageRefusal)


def retry_now(transaction: Transaction, keys: Iterable[str], now: datetime) -> None:
    """Have refused messages tried now, whatever their pauses."""
    for key in keys:
        refusal = refusal_of(transaction, key)
        if refusal is not None:
            put_refusal(transaction, key, msgspec.structs.replace(refusal, retry=now))


def put_refusal(transaction: Transaction, key: str, refusal: MessageRefusal) -> None:
    transaction.put(REFUSED, key, cast("dict[str, object]", msgspec.to_builtins(refusal)))


def _refusals(rows: Iterable[Row]) -> dict[str, MessageRefusal]:
    return {row.key: msgspec.convert(row.value, MessageRefusal) for row in rows}


def _entry(row: Row) -> OutboxEntry:
    return OutboxEntry(key=row.key, message=msgspec.convert(row.value, Message))

"""The row of each receiver: who delivers to it, its failures, and its next try."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.alerting.delivery import LONGEST_PAUSE, ReceiverHealth
from cumulant.core.errors import LeaseHeldError
from cumulant.flows.alerting.outbox import ACTOR
from cumulant.flows.ledger.lease import LeaseWatch
from cumulant.flows.ledger.processes import Process, this_process

if TYPE_CHECKING:
    from cumulant.core.events import Fact
    from cumulant.ports.journal import Journal, Transaction

RECEIVER = "notify_receiver"
#: seconds after which a claim that was not renewed is taken over; a message has 10 s, and each renews it
CLAIM_SECONDS = 30.0


class ReceiverState(ReceiverHealth, frozen=True, kw_only=True):
    """A receiver's row; `holder`: the process that delivers to it, which writes the row with each message."""

    holder: Process | None = None

    @property
    def health(self) -> ReceiverHealth:
        return msgspec.convert(self, ReceiverHealth, from_attributes=True)


def read_receiver_state(journal: Journal, receiver: str) -> tuple[ReceiverState, int]:
    """A receiver's state and its row's version; a new one at version 0."""
    row = journal.get(RECEIVER, receiver)
    return (ReceiverState(), 0) if row is None else (msgspec.convert(row.value, ReceiverState), row.version)


def is_due(state: ReceiverState, now: datetime) -> bool:
    """Whether its pause is over. A clock that was set back holds it up no longer than the longest pause."""
    return state.retry is None or now >= state.retry or state.retry - now > LONGEST_PAUSE


def is_free(receiver: str, state: ReceiverState, version: int, watch: LeaseWatch) -> bool:
    """Whether no process delivers to it, as far as `watch` saw."""
    if state.holder is None:
        return True
    return watch.has_lapsed(f"{RECEIVER}/{receiver}", version, ttl=CLAIM_SECONDS, holder=state.holder)


def claim(journal: Journal, receiver: str, now: datetime, watch: LeaseWatch) -> tuple[ReceiverState, int] | None:
    """The state, claimed for this process, and its row's version; None where another one delivers or it is not due."""
    state, version = read_receiver_state(journal, receiver)
    if not is_due(state, now) or not is_free(receiver, state, version, watch):
        return None
    mine = claimed(state.health)
    try:
        with journal.transaction(actor=ACTOR) as transaction:
            return mine, write(transaction, receiver, mine, version)
    except LeaseHeldError:
        return None


def claimed(health: ReceiverHealth) -> ReceiverState:
    return ReceiverState(**msgspec.structs.asdict(health), holder=this_process())


def released(health: ReceiverHealth) -> ReceiverState:
    return ReceiverState(**msgspec.structs.asdict(health))


def write(transaction: Transaction, receiver: str, state: ReceiverState, expect: int, *facts: Fact) -> int:
    """Store a row and its facts; the row's new version, the fence of the delivering process.

    Raises:
        LeaseHeldError: another process has taken the receiver over.
    """
    row = transaction.put(RECEIVER, receiver, cast("dict[str, object]", msgspec.to_builtins(state)), expect=expect)
    for fact in facts:
        transaction.emit(fact)
    return row.version

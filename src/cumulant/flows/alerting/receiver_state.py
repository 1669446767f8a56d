"""The state of each receiver: its holder, its failures, and its next try."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError, OverloadedError, TerminalError
from cumulant.flows.alerting.outbox import ACTOR
from cumulant.flows.ledger.processes import Process, is_gone, this_process

if TYPE_CHECKING:
    from cumulant.core.events import Fact
    from cumulant.ports.journal import Journal, Transaction

STANDING = "notify_receiver"
#: a claim that was not renewed for so long is given up, also of a process that lives
_CLAIM = timedelta(minutes=2)
_FIRST, _LONGEST, _REFUSED = timedelta(seconds=10), timedelta(hours=1), timedelta(minutes=5)


class ReceiverState(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver's row. `failures` in a row; `notified`: when one that keeps alerts was last told all that fire."""

    holder: Process | None = None
    claimed: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    retry: datetime | None = None
    fault: str = ""
    delivered: datetime | None = None
    notified: datetime | None = None


def read_receiver_state(journal: Journal, receiver: str) -> tuple[ReceiverState, int]:
    """A receiver's standing and its row's version; a new one at version 0."""
    row = journal.get(STANDING, receiver)
    return (ReceiverState(), 0) if row is None else (msgspec.convert(row.value, ReceiverState), row.version)


def is_due(state: ReceiverState, now: datetime) -> bool:
    """Whether it may be tried. A clock that was set back holds it up no longer than the longest pause."""
    if state.holder is not None and state.claimed is not None:
        claimed = not is_gone(state.holder) and abs(now - state.claimed) <= _CLAIM
        if claimed:
            return False
    return state.retry is None or now >= state.retry or state.retry - now > _LONGEST


def claim(journal: Journal, receiver: str, now: datetime) -> tuple[ReceiverState, int] | None:
    """The standing, claimed for this process; None where another one delivers or it is not time yet."""
    state, version = read_receiver_state(journal, receiver)
    if not is_due(state, now):
        return None
    mine = msgspec.structs.replace(state, holder=this_process(), claimed=now)
    try:
        with journal.transaction(actor=ACTOR) as transaction:
            return mine, write(transaction, receiver, mine, version)
    except LeaseHeldError:
        return None


def write(transaction: Transaction, receiver: str, state: ReceiverState, expect: int, *facts: Fact) -> int:
    """Store a standing and its facts; the row's new version, which is the fence of whoever delivers.

    Raises:
        LeaseHeldError: another process has taken the receiver over.
    """
    row = transaction.put(STANDING, receiver, cast("dict[str, object]", msgspec.to_builtins(state)), expect=expect)
    for fact in facts:
        transaction.emit(fact)
    return row.version


def after_delivery(state: ReceiverState, now: datetime) -> ReceiverState:
    """After a message was taken."""
    return ReceiverState(holder=state.holder, claimed=now, delivered=now, notified=state.notified)


def after_failure(state: ReceiverState, error: CumulantError, fault: str, now: datetime) -> ReceiverState:
    """After a failure, given up until the next try: twice as long as before, at most an hour."""
    failures = state.failures + 1
    pause = min(_FIRST * 2 ** min(failures - 1, 20), _LONGEST)
    if isinstance(error, OverloadedError):
        pause = timedelta(seconds=error.retry_after)
    elif isinstance(error, TerminalError):
        pause = max(pause, _REFUSED)
    return msgspec.structs.replace(
        state,
        holder=None,
        claimed=None,
        failures=failures,
        failing_since=state.failing_since or now,
        retry=now + pause,
        fault=fault,
    )

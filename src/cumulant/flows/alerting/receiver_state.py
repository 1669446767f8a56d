"""How each receiver stands: who delivers to it, whether it answers, and when it is tried again."""

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


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver's row. `failures` in a row; `told`: when one that keeps alerts was last told all that fire."""

    holder: Process | None = None
    claimed: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    retry: datetime | None = None
    fault: str = ""
    delivered: datetime | None = None
    told: datetime | None = None


def standing(journal: Journal, receiver: str) -> tuple[Standing, int]:
    """A receiver's standing and its row's version; a new one at version 0."""
    row = journal.get(STANDING, receiver)
    return (Standing(), 0) if row is None else (msgspec.convert(row.value, Standing), row.version)


def is_due(found: Standing, now: datetime) -> bool:
    """Whether it may be tried. A clock that was set back holds it up no longer than the longest pause."""
    if found.holder is not None and found.claimed is not None:
        held = not is_gone(found.holder) and abs(now - found.claimed) <= _CLAIM
        if held:
            return False
    return found.retry is None or now >= found.retry or found.retry - now > _LONGEST


def claim(journal: Journal, receiver: str, now: datetime) -> tuple[Standing, int] | None:
    """The standing, claimed for this process; None where another one delivers or it is not time yet."""
    found, version = standing(journal, receiver)
    if not is_due(found, now):
        return None
    mine = msgspec.structs.replace(found, holder=this_process(), claimed=now)
    try:
        with journal.transaction(actor=ACTOR) as transaction:
            return mine, write(transaction, receiver, mine, version)
    except LeaseHeldError:
        return None


def write(transaction: Transaction, receiver: str, found: Standing, expect: int, *facts: Fact) -> int:
    """Store a standing and its facts; the row's new version, which is the fence of whoever delivers.

    Raises:
        LeaseHeldError: another process has taken the receiver over.
    """
    row = transaction.put(STANDING, receiver, cast("dict[str, object]", msgspec.to_builtins(found)), expect=expect)
    for fact in facts:
        transaction.emit(fact)
    return row.version


def taken(found: Standing, now: datetime) -> Standing:
    """After a message was taken."""
    return Standing(holder=found.holder, claimed=now, delivered=now, told=found.told)


def failed(found: Standing, error: CumulantError, fault: str, now: datetime) -> Standing:
    """After a failure, given up until the next try: twice as long as before, at most an hour."""
    failures = found.failures + 1
    pause = min(_FIRST * 2 ** min(failures - 1, 20), _LONGEST)
    if isinstance(error, OverloadedError):
        pause = timedelta(seconds=error.retry_after)
    elif isinstance(error, TerminalError):
        pause = max(pause, _REFUSED)
    return msgspec.structs.replace(
        found,
        holder=None,
        claimed=None,
        failures=failures,
        failing_since=found.failing_since or now,
        retry=now + pause,
        fault=fault,
    )

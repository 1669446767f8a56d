"""Clean-up of receivers that the project file no longer names: their messages move to successors, or expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cumulant.alerting.alert_events import MessagesLeftOut
from cumulant.alerting.delivery import OutboxEntry
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.outbox import ACTOR, LEFT_OUT
from cumulant.flows.alerting.receiver_state import RECEIVER

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.project.notifiers import Receiver


def remove_unnamed(journal: Journal, receivers: Sequence[Receiver]) -> None:
    """Forget receivers that are named no more.

    A wrong address is put right in the project file, and then it is another receiver: one of the same scheme that is
    new takes what waited. Where there is none, an event tells how many messages went.
    """
    names = {receiver.name for receiver in receivers}
    waiting: dict[str, list[OutboxEntry]] = {}
    for entry in outbox.waiting(journal):
        waiting.setdefault(entry.key.rpartition("/")[0], []).append(entry)
    known = {row.key for row in journal.rows(RECEIVER)}
    new = [receiver for receiver in receivers if receiver.name not in known]
    for gone in sorted({*waiting, *known} - names):
        heirs = [heir for heir in new if _scheme(heir.name) == _scheme(gone)]
        with journal.transaction(actor=ACTOR) as transaction:
            _forget(transaction, gone, waiting.get(gone, []), heirs)


def _forget(transaction: Transaction, gone: str, entries: Sequence[OutboxEntry], heirs: Sequence[Receiver]) -> None:
    outbox.put(transaction, heirs, [entry.message for entry in entries])
    for entry in entries:
        outbox.take_out(transaction, entry.key)
    transaction.delete(LEFT_OUT, gone)
    transaction.delete(RECEIVER, gone)
    if entries and not heirs:
        reason = "monitoring.notify no longer names it"
        transaction.emit(MessagesLeftOut(receiver=gone, messages=len(entries), reason=reason))


def _scheme(name: str) -> str:
    return name.rpartition("-")[0]

"""Manual retry and drop of messages that did not arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_events import MessagesLeftOut
from cumulant.alerting.delivery import OutboxEntry
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import LeaseHeldError, UsageError, not_found
from cumulant.core.events import Actor
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.alerts import deliver
from cumulant.flows.alerting.receiver_state import read_receiver_state, write
from cumulant.flows.alerting.views import ReceiverView, RefusedView, receiver_views, refused_views
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project


class RetryResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result in a sentence, the receivers, and what they still refuse."""

    sentence: str
    receivers: list[ReceiverView]
    refused: list[RefusedView]


@verb("alerts.steer")
def retry(
    project: Project, *, principal: Principal, message: str = "", receiver: str = "", clock: Clock | None = None
) -> RetryResult:
    """Try all that waits of a receiver, or one refused message, now, despite pauses.

    Raises:
        NotFoundError: no receiver, or no refused message, is named like that.
    """
    journal, now = project.journal(), (clock or SystemClock()).now()
    names = _names(project, receiver)
    entries = _refused(journal, names, message)
    with journal.transaction(actor=Actor(str(principal.id))) as transaction:
        outbox.retry_now(transaction, [entry.key for entry in entries], now)
    wanted = {entry.key.rpartition("/")[0] for entry in entries} if message else set(names)
    for name in wanted:
        receiver_state, version = read_receiver_state(journal, name)
        if receiver_state.retry is not None and receiver_state.holder is None:
            try:
                with journal.transaction(actor=Actor(str(principal.id))) as transaction:
                    write(transaction, name, msgspec.structs.replace(receiver_state, retry=None), version)
            except LeaseHeldError:
                continue  # another process delivers to it at this moment
    sentence = deliver(project, clock=clock)
    views = [row for row in receiver_views(project) if row.receiver in wanted]
    return RetryResult(
        sentence=sentence, receivers=views, refused=[row for name in wanted for row in refused_views(journal, name)]
    )


@verb("alerts.steer")
def drop(project: Project, message: str, *, principal: Principal, reason: str = "") -> list[RefusedView]:
    """Drop a refused message, for each receiver that refuses it; its alert stays as it is.

    Raises:
        NotFoundError: no refused message is named like that.
        UsageError: none was named.
    """
    if not message:
        raise UsageError("no message is named", hint="`cumulant alerts list` shows what receivers refuse")
    journal, names = project.journal(), _names(project, "")
    entries = _refused(journal, names, message)
    known = {(refusal.receiver, refusal.message): refusal for name in names for refusal in refused_views(journal, name)}
    with journal.transaction(actor=Actor(str(principal.id), reason or None)) as transaction:
        for entry in entries:
            outbox.take_out(transaction, entry.key)
            why = f'"{entry.message.title}" was refused, and dropped'
            transaction.emit(MessagesLeftOut(receiver=entry.key.rpartition("/")[0], messages=1, reason=why))
    return [known[entry.key.rpartition("/")[0], entry.message.key] for entry in entries]


def _names(project: Project, receiver: str) -> list[str]:
    """Raises NotFoundError."""
    names = [known.name for known in project.receivers()]
    if receiver and receiver not in names:
        raise not_found("receiver", receiver, names, empty="monitoring.notify names no receiver")
    return [receiver] if receiver else names


def _refused(journal: Journal, names: Sequence[str], message: str) -> list[OutboxEntry]:
    """Refused messages whose name begins so. Raises NotFoundError where one is named and none does."""
    entries = [
        entry
        for name in names
        for known in [outbox.refusals(journal, name)]
        for entry in outbox.waiting(journal, name)
        if entry.key in known
    ]
    chosen = [entry for entry in entries if entry.message.key.startswith(message)]
    if message and not chosen:
        raise not_found(
            "refused message", message, {entry.message.key for entry in entries}, empty="nothing is refused"
        )
    return chosen

"""One turn of delivery to one receiver, by whoever has claimed it.

A message is sent, then noted in one transaction with its removal from the outbox. What the receiver refuses of one
message is noted with that message, and the next one is sent; what it would say of any message ends the turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_events import MessageDelivered, MessageRefused, MessagesLeftOut, ReceiverFailed
from cumulant.alerting.alert_state import AlertChange, AlertsState
from cumulant.alerting.messages import message
from cumulant.core.errors import CumulantError, LeaseHeldError, TerminalError, UndeliverableError
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.delivery_notices import left_out_notice, refused_notice
from cumulant.flows.alerting.outbox import ACTOR, LEFT_OUT, OUTBOX, TRIES, OutboxEntry
from cumulant.flows.alerting.receiver_state import (
    ReceiverState,
    after_delivery,
    after_failure,
    read_receiver_state,
    write,
)
from cumulant.flows.alerting.store import read
from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.ports.journal import Journal
    from cumulant.ports.notifier import Notifier
    from cumulant.project.notifiers import Receiver
    from cumulant.project.project import Project

#: one that keeps alerts may have forgotten them: it is told again of what fires
_AGAIN = timedelta(minutes=5)
#: messages refused one after the other, and none taken: it is the receiver that refuses, whatever it is sent
_ALL = 3


def messages_to_repeat(journal: Journal, receiver: Receiver, state_row: ReceiverState, now: datetime) -> list[Message]:
    """What fires, for a receiver that keeps alerts and was not told for a while; not what it refuses anyway."""
    if not receiver.keeps_state or (state_row.notified is not None and abs(now - state_row.notified) < _AGAIN):
        return []
    known = outbox.refusals(journal, receiver.name)
    refused = {entry.message.key for entry in outbox.waiting(journal, receiver.name) if entry.key in known}
    state, _ = read(journal)
    messages = [message(AlertChange(what="fired", alerts=(alert,), at=now)) for alert in state.firing]
    return [entry for entry in messages if entry.key not in refused]


class Delivery:
    """All that is due for one receiver, until it fails or another process delivers to it.

    Args:
        claimed: the receiver's standing as this process has claimed it, and its row's version, which is the fence.
        seconds: of one message.
        delivered: keys of what was taken are added to it.
    """

    def __init__(
        self,
        project: Project,
        receiver: Receiver,
        claimed: tuple[ReceiverState, int],
        *,
        clock: Clock,
        seconds: float,
        delivered: list[str],
    ) -> None:
        self._project, self._receiver, self._clock, self._seconds = project, receiver, clock, seconds
        self._journal, self._delivered = project.journal(), delivered
        self._found, self._version = claimed
        self._sending: Message | None = None
        self._refused_in_a_row, self._took_any = 0, False

    def run(self) -> None:
        """Raises LeaseHeldError where another process took over, and CumulantError where the journal fails."""
        try:
            self._send_all(self._project.notifier(self._receiver))
        except LeaseHeldError:
            raise
        except CumulantError as error:
            self._failed(error)
            return
        except Exception as error:  # noqa: BLE001 - the edge: a driver of others stops no other receiver
            self._failed(TerminalError(_driver_fault(error)))
            return
        with self._journal.transaction(actor=ACTOR) as transaction:
            done = msgspec.structs.replace(self._found, holder=None, claimed=None)
            write(transaction, self._receiver.name, done, self._version)

    def _send_all(self, client: Notifier) -> None:
        for entry in self._queue():
            self._send(client, entry)
        again = messages_to_repeat(self._journal, self._receiver, self._found, self._clock.now())
        for repeated in again:
            self._send(client, OutboxEntry(key="", message=repeated), again=True)
        if again:
            self._found = msgspec.structs.replace(self._found, notified=self._clock.now())

    def _queue(self) -> Iterator[OutboxEntry]:
        """What is to be sent: that some were left out, then what is due, until nothing is."""
        name = self._receiver.name
        missed = outbox.left_out(self._journal, name)
        if missed is not None and not self._receiver.keeps_state:
            yield OutboxEntry(key="", message=left_out_notice(self._project.name, missed, self._clock.now()))
        while entries := outbox.due(self._journal, name, self._clock.now()):
            known = outbox.refusals(self._journal, name)
            for entry in entries:
                if entry.key in known and self._is_past(entry.message):
                    self._drop(entry)
                else:
                    yield entry

    def _is_past(self, refused: Message) -> bool:
        """Whether a message for what keeps alerts would, sent now, undo what was told since."""
        if not self._receiver.keeps_state or refused.kind != "alert":
            return False
        state, _ = read(self._journal)
        return is_past(refused, state)

    def _drop(self, entry: OutboxEntry) -> None:
        reason = "it was refused, and what it told is no longer so"
        with self._journal.transaction(actor=ACTOR) as transaction:
            outbox.take_out(transaction, entry.key)
            transaction.emit(MessagesLeftOut(receiver=self._receiver.name, messages=1, reason=reason))

    def _send(self, client: Notifier, entry: OutboxEntry, *, again: bool = False) -> None:
        self._sending = entry.message
        try:
            answer = client.send(entry.message, seconds=self._seconds)
        except UndeliverableError as error:
            self._refused(entry, error.message)
        except CumulantError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: what a driver of others stumbles over may be this message
            self._refused(entry, _driver_fault(error))
        else:
            self._refused_in_a_row, self._took_any = 0, True
            if again:
                self._found = after_delivery(self._found, self._clock.now())
            else:
                self._noted(entry, self._project.vault.redact(answer))

    def _noted(self, entry: OutboxEntry, answer: str) -> None:
        """It was taken. After a time in which the receiver took nothing, what it refused then is tried at once."""
        now, name, sent = self._clock.now(), self._receiver.name, entry.message
        failures, known = self._found.failures, outbox.refusals(self._journal, name)
        fact = MessageDelivered(receiver=name, message=sent.key, title=sent.title, failures=failures, note=answer)
        with self._journal.transaction(actor=ACTOR) as transaction:
            receiver_state = after_delivery(self._found, now)
            version = write(transaction, name, receiver_state, self._version, fact)
            row = transaction.get(OUTBOX, entry.key) if entry.key else None
            if row is not None and msgspec.convert(row.value, Message).key == sent.key:
                outbox.take_out(transaction, entry.key)
            if not entry.key or self._receiver.keeps_state:
                transaction.delete(LEFT_OUT, name)
            if failures:
                outbox.retry_now(transaction, [key for key, refusal in known.items() if not refusal.aside], now)
        self._found, self._version = receiver_state, version
        self._delivered.append(sent.key)

    def _refused(self, entry: OutboxEntry, fault: str) -> None:
        """Note it with the message and go on.

        Raises:
            TerminalError: the receiver refuses all that it is sent.
        """
        fault, name, now = self._project.vault.redact(fault), self._receiver.name, self._clock.now()
        with self._journal.transaction(actor=ACTOR) as transaction:
            claimed = msgspec.structs.replace(self._found, claimed=now)
            version = write(transaction, name, claimed, self._version)
            if not entry.key and entry.message.kind == "alert":  # told again: from here on it is a message that waits
                outbox.put(transaction, [self._receiver], [entry.message])
                entry = outbox.last(transaction, name)
            after = outbox.refuse(transaction, entry, fault, now)
            if after is not None and after.tries == TRIES:
                title = entry.message.title
                transaction.emit(MessageRefused(receiver=name, message=entry.message.key, title=title, fault=fault))
                notice = refused_notice(self._project.name, entry.message, fault, now)
                if notice is not None and not self._receiver.keeps_state:
                    outbox.put(transaction, [self._receiver], [notice])
        self._found, self._version = claimed, version
        if after is None or after.tries <= TRIES:
            self._refused_in_a_row += 1
        if self._refused_in_a_row >= _ALL and not self._took_any:
            raise TerminalError(fault)

    def _failed(self, error: CumulantError) -> None:
        """Noted; an event tells of the first failure of a row of them."""
        before, _ = read_receiver_state(self._journal, self._receiver.name)
        fault = self._project.vault.redact(error.message)
        after = after_failure(before, error, fault, self._clock.now())
        key = self._sending.key if self._sending else ""
        facts = [] if before.failures else [ReceiverFailed(receiver=self._receiver.name, message=key, fault=fault)]
        with self._journal.transaction(actor=ACTOR) as transaction:
            write(transaction, self._receiver.name, after, self._version, *facts)


def is_past(message: Message, state: AlertsState) -> bool:
    """Whether what a message of an alert told is no longer so: it ended or rose since, or fires again."""
    if message.status == "resolved":
        named = (message.model, message.rule, message.subject)
        return any((alert.finding.model, alert.finding.rule, alert.finding.subject) == named for alert in state.firing)
    return not any(alert.id == message.detail.get("id") and alert.level == message.level for alert in state.firing)


def _driver_fault(error: Exception) -> str:
    return f"a fault of its driver: {type(error).__name__}: {error}"

"""One turn of delivery to one receiver, by the process that has claimed it.

A message is sent; what follows from the answer is decided by `decide_delivery`, and stored in one transaction with the
message's removal from the outbox.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_events import MessagesLeftOut
from cumulant.alerting.delivery import (
    Actions,
    Failed,
    OutboxEntry,
    ReceiverHealth,
    Refused,
    Taken,
    Turn,
    decide_delivery,
    is_past,
    left_out_notice,
    repeated_messages,
)
from cumulant.core.errors import CumulantError, LeaseHeldError, TerminalError, UndeliverableError
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.outbox import ACTOR, LEFT_OUT
from cumulant.flows.alerting.receiver_state import ReceiverState, claimed, read_receiver_state, released, write
from cumulant.flows.alerting.store import read

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.ports.notifier import Message, Notifier
    from cumulant.project.notifiers import Receiver
    from cumulant.project.project import Project


def messages_to_repeat(journal: Journal, receiver: Receiver, health: ReceiverHealth, now: datetime) -> list[Message]:
    """What fires, as `repeated_messages`; nothing for a receiver that does not keep alerts."""
    if not receiver.keeps_state:
        return []
    known = outbox.refusals(journal, receiver.name)
    refused = [entry.message for entry in outbox.waiting(journal, receiver.name) if entry.key in known]
    return repeated_messages(health, read(journal)[0], refused, now)


class Delivery:
    """All that is due for one receiver, until it fails or another process delivers to it.

    Args:
        row: the receiver's state as this process has claimed it, and its row's version, which is the fence.
        seconds: of one message.
        delivered: keys of messages that were taken are added to it.
    """

    def __init__(
        self,
        project: Project,
        receiver: Receiver,
        row: tuple[ReceiverState, int],
        *,
        clock: Clock,
        seconds: float,
        delivered: list[str],
    ) -> None:
        self._project, self._receiver, self._clock, self._seconds = project, receiver, clock, seconds
        self._journal, self._delivered = project.journal(), delivered
        self._turn = Turn(
            project=project.name, receiver=receiver.name, keeps_state=receiver.keeps_state, health=row[0].health
        )
        self._version = row[1]
        self._sending: Message | None = None

    def run(self) -> None:
        """Raises LeaseHeldError where another process took over, and CumulantError where the journal fails."""
        try:
            self._send_all(self._project.notifier(self._receiver))
        except LeaseHeldError:
            raise
        except CumulantError as error:
            self._record_failure(error)
            return
        except Exception as error:  # noqa: BLE001 - the edge: a driver of others stops no other receiver
            self._record_failure(TerminalError(_driver_fault(error)))
            return
        with self._journal.transaction(actor=ACTOR) as transaction:
            write(transaction, self._receiver.name, released(self._turn.health), self._version)

    def _send_all(self, client: Notifier) -> None:
        for entry in self._entries():
            self._send(client, entry)
        again = messages_to_repeat(self._journal, self._receiver, self._turn.health, self._clock.now())
        for repeated in again:
            self._send(client, OutboxEntry(key="", message=repeated), repeated=True)
        if again:
            health = msgspec.structs.replace(self._turn.health, notified=self._clock.now())
            self._turn = replace(self._turn, health=health)

    def _entries(self) -> Iterator[OutboxEntry]:
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
        """Whether a message for a receiver that keeps alerts would, sent now, undo a later one."""
        return self._receiver.keeps_state and refused.kind == "alert" and is_past(refused, read(self._journal)[0])

    def _drop(self, entry: OutboxEntry) -> None:
        reason = "it was refused, and what it told is no longer so"
        with self._journal.transaction(actor=ACTOR) as transaction:
            outbox.take_out(transaction, entry.key)
            transaction.emit(MessagesLeftOut(receiver=self._receiver.name, messages=1, reason=reason))

    def _send(self, client: Notifier, entry: OutboxEntry, *, repeated: bool = False) -> None:
        self._sending = entry.message
        try:
            answer = client.send(entry.message, seconds=self._seconds)
        except UndeliverableError as error:
            self._record_refusal(entry, error.message)
        except CumulantError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: what a driver of others stumbles over may be this message
            self._record_refusal(entry, _driver_fault(error))
        else:
            self._record_taken(Taken(entry=entry, note=self._project.vault.redact(answer), repeated=repeated))

    def _record_taken(self, taken: Taken) -> None:
        now, entry = self._clock.now(), taken.entry
        turn, actions = decide_delivery(self._turn, taken, now)
        if not taken.repeated:
            with self._journal.transaction(actor=ACTOR) as transaction:
                version = write(transaction, turn.receiver, claimed(turn.health, now), self._version)
                if outbox.waits(transaction, entry):
                    outbox.take_out(transaction, entry.key)
                self._apply(transaction, entry, actions, now)
            self._version = version
            self._delivered.append(entry.message.key)
        self._turn = turn

    def _record_refusal(self, entry: OutboxEntry, fault: str) -> None:
        """Store it with the message and go on.

        Raises:
            TerminalError: the receiver refuses all that it is sent.
        """
        fault, name, now = self._project.vault.redact(fault), self._receiver.name, self._clock.now()
        with self._journal.transaction(actor=ACTOR) as transaction:
            version = write(transaction, name, claimed(self._turn.health, now), self._version)
            if not entry.key and entry.message.kind == "alert":  # a repeated one: from here on it waits in the outbox
                outbox.put(transaction, [self._receiver], [entry.message])
                entry = outbox.last(transaction, name)
            waiting, earlier = outbox.waits(transaction, entry), outbox.refusal_of(transaction, entry.key)
            refused = Refused(entry=entry, fault=fault, waiting=waiting, earlier=earlier)
            turn, actions = decide_delivery(self._turn, refused, now)
            self._apply(transaction, entry, actions, now)
        self._turn, self._version = turn, version
        if turn.refuses_all:
            raise TerminalError(fault)

    def _record_failure(self, error: CumulantError) -> None:
        before, _ = read_receiver_state(self._journal, self._receiver.name)
        failed = Failed(error=error, fault=self._project.vault.redact(error.message), message=self._sending)
        turn, actions = decide_delivery(replace(self._turn, health=before.health), failed, self._clock.now())
        with self._journal.transaction(actor=ACTOR) as transaction:
            write(transaction, turn.receiver, released(turn.health), self._version, *actions.facts)

    def _apply(self, transaction: Transaction, entry: OutboxEntry, actions: Actions, now: datetime) -> None:
        """Store what follows from an answer to a message."""
        name = self._receiver.name
        for fact in actions.facts:
            transaction.emit(fact)
        if actions.refusal is not None:
            outbox.put_refusal(transaction, entry.key, actions.refusal)
        outbox.put(transaction, [self._receiver], actions.notices)
        if actions.clear_left_out:
            transaction.delete(LEFT_OUT, name)
        if actions.retry_refused:
            known = outbox.refusals(transaction, name)
            outbox.retry_now(transaction, [key for key, refusal in known.items() if not refusal.aside], now)


def _driver_fault(error: Exception) -> str:
    return f"a fault of its driver: {type(error).__name__}: {error}"

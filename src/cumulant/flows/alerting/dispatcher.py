"""Delivery: a thread a receiver, so that one that hangs delays no other; at least once, under the same key."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_events import MessagesLeftOut
from cumulant.alerting.alert_state import AlertsState
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
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, LeaseHeldError, TerminalError, UndeliverableError
from cumulant.core.structs import prepare_decoding
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.outbox import ACTOR, LEFT_OUT, due
from cumulant.flows.alerting.receiver_state import (
    ReceiverState,
    claim,
    claimed,
    is_due,
    is_free,
    read_receiver_state,
    released,
    write,
)
from cumulant.flows.alerting.store import read
from cumulant.flows.ledger.lease import LeaseWatch
from cumulant.flows.ledger.processes import is_here

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.ports.notifier import Message, Notifier
    from cumulant.project.notifiers import Receiver
    from cumulant.project.project import Project

#: seconds that a receiver has for one message
SECONDS = 10.0


class Dispatcher:
    """Delivers what waits. `round` starts what is due and returns at once; `wait` waits for it.

    `report` gets a sentence on errors of this side, such as a journal that cannot be written.
    """

    def __init__(
        self,
        project: Project,
        *,
        clock: Clock | None = None,
        seconds: float = SECONDS,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._project, self._clock, self._seconds, self._report = project, clock or SystemClock(), seconds, report
        self._threads: dict[str, threading.Thread] = {}
        prepare_decoding(AlertsState, OutboxEntry, ReceiverState)  # which the threads read
        self._taken: list[str] = []
        self._watches: defaultdict[str, LeaseWatch] = defaultdict(LeaseWatch)

    @property
    def delivered(self) -> int:
        """How many messages were taken so far."""
        return len(self._taken)

    def round(self) -> list[str]:
        """Start delivery to each receiver that is due; names of those that a process of another machine has claimed.

        Raises:
            CumulantError: the journal cannot be reached.
        """
        journal, now, elsewhere = self._project.journal(), self._clock.now(), []
        for receiver in self._project.receivers():
            thread = self._threads.get(receiver.name)
            if thread is not None and thread.is_alive():
                continue
            receiver_state, version = read_receiver_state(journal, receiver.name)
            if not is_due(receiver_state, now) or not (
                due(journal, receiver.name, now) or messages_to_repeat(journal, receiver, receiver_state, now)
            ):
                continue
            if is_free(receiver.name, receiver_state, version, self._watches[receiver.name]):
                thread = threading.Thread(target=self._serve, args=(receiver,), daemon=True)
                self._threads[receiver.name] = thread
                thread.start()
            elif receiver_state.holder is not None and not is_here(receiver_state.holder):
                elsewhere.append(receiver.name)
        return elsewhere

    def wait(self, seconds: float) -> list[str]:
        """Wait for deliveries; names of the receivers that are not done by then."""
        until = time.monotonic() + seconds
        threads = self._threads.copy()  # a round of another thread may add to it
        for thread in threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return [name for name, thread in threads.items() if thread.is_alive()]

    def _serve(self, receiver: Receiver) -> None:
        """All that waits for one receiver, until it fails or another process delivers to it."""
        journal = self._project.journal()
        try:
            claimed = claim(journal, receiver.name, self._clock.now(), self._watches[receiver.name])
            if claimed is not None:
                self._turn(receiver, claimed).run()
        except LeaseHeldError:
            return  # it took so long that another process took over, which sends the message once more
        except CumulantError as error:  # nothing was noted: the claim lapses, and the message is sent once more
            self._report(f"messages to {receiver.name} wait: {self._project.vault.redact(error.message)}")

    def _turn(self, receiver: Receiver, claimed: tuple[ReceiverState, int]) -> Delivery:
        return Delivery(
            self._project, receiver, claimed, clock=self._clock, seconds=self._seconds, delivered=self._taken
        )


def messages_to_repeat(journal: Journal, receiver: Receiver, health: ReceiverHealth, now: datetime) -> list[Message]:
    """What fires, as `repeated_messages`; nothing for a receiver that does not keep alerts."""
    if not receiver.keeps_state:
        return []
    known = outbox.refusals(journal, receiver.name)
    refused = [entry.message for entry in outbox.waiting(journal, receiver.name) if entry.key in known]
    return repeated_messages(health, read(journal)[0], refused, now)


class Delivery:
    """Delivers all that is due to one receiver, until it fails or another process delivers to it.

    Args:
        row: the receiver's state as claimed, and its row's version, which is the fence.
        seconds: of one message.
        delivered: keys of delivered messages are added to it.
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
        reason = "it was refused, and is no longer true"
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
                version = write(transaction, turn.receiver, claimed(turn.health), self._version)
                if outbox.waits(transaction, entry):
                    outbox.take_out(transaction, entry.key)
                self._apply(transaction, entry, actions, now)
            self._version = version
            self._delivered.append(entry.message.key)
        self._turn = turn

    def _record_refusal(self, entry: OutboxEntry, fault: str) -> None:
        """Record it with the message; raises TerminalError where the receiver refuses all messages."""
        fault, name, now = self._project.vault.redact(fault), self._receiver.name, self._clock.now()
        with self._journal.transaction(actor=ACTOR) as transaction:
            version = write(transaction, name, claimed(self._turn.health), self._version)
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

"""Delivery: a thread a receiver, so that one that hangs delays no other.

A message is sent, then noted in one transaction with its removal from the outbox. A process that is killed in between
sends that one message again, under the same key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, LeaseHeldError, TerminalError
from cumulant.monitoring.alerts.events import MessageDelivered, ReceiverFailed
from cumulant.monitoring.alerts.state import Change
from cumulant.monitoring.alerts.words import message
from cumulant.ports.notifier import Message
from cumulant.runtime.alerts.book import read
from cumulant.runtime.alerts.outbox import ACTOR, LEFT_OUT, OUTBOX, left_out, waiting
from cumulant.runtime.alerts.standing import Standing, claim, failed, is_due, standing, taken, write

if TYPE_CHECKING:
    from cumulant.project import Project
    from cumulant.project.notifiers import Receiver

#: seconds that a receiver has for one message
SECONDS = 10.0
#: one that keeps alerts may have forgotten them: it is told again of what fires
_AGAIN = timedelta(minutes=5)


class Postman:
    """Delivers what waits. `round` starts what is due and returns at once; `wait` waits for what was started.

    `report` is told in a sentence what stops a delivery on this side, such as a journal that cannot be written.
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
        self._taken: list[str] = []

    @property
    def delivered(self) -> int:
        """How many messages were taken so far."""
        return len(self._taken)

    def round(self) -> None:
        """Start delivery to each receiver that something waits for and that is due.

        Raises:
            CumulantError: the journal cannot be reached.
        """
        journal, now = self._project.journal(), self._clock.now()
        for receiver in self._project.receivers():
            thread = self._threads.get(receiver.name)
            if thread is not None and thread.is_alive():
                continue
            found, _ = standing(journal, receiver.name)
            if is_due(found, now) and (waiting(journal, receiver.name) or self._again(receiver, found, now)):
                thread = threading.Thread(target=self._serve, args=(receiver,), daemon=True)
                self._threads[receiver.name] = thread
                thread.start()

    def wait(self, seconds: float) -> list[str]:
        """Wait for deliveries; names of the receivers that are not done by then."""
        until = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return [name for name, thread in self._threads.items() if thread.is_alive()]

    def _again(self, receiver: Receiver, found: Standing, now: datetime) -> list[Message]:
        """What fires, for a receiver that keeps alerts and was not told for a while."""
        if not receiver.keeps_state or (found.told is not None and abs(now - found.told) < _AGAIN):
            return []
        state, _ = read(self._project.journal())
        return [message(Change(what="fired", alerts=(alert,), at=now)) for alert in state.firing]

    def _serve(self, receiver: Receiver) -> None:
        """All that waits for one receiver, until it fails or another process delivers to it."""
        journal = self._project.journal()
        try:
            held = claim(journal, receiver.name, self._clock.now())
            if held is not None:
                self._deliver(receiver, *held)
        except LeaseHeldError:
            return  # it took so long that another process took over, which sends the message once more
        except CumulantError as error:  # nothing was noted: the claim lapses, and the message is sent once more
            self._report(f"messages to {receiver.name} wait: {self._project.vault.redact(error.message)}")

    def _deliver(self, receiver: Receiver, found: Standing, version: int) -> None:
        sending: Message | None = None
        journal = self._project.journal()
        try:
            client = self._project.notifier(receiver)
            for key, sending in self._queue(receiver):
                said = self._project.vault.redact(client.send(sending, seconds=self._seconds))
                found, version = self._noted(receiver, key, sending, found, version, said=said)
            for sending in self._again(receiver, found, self._clock.now()):
                client.send(sending, seconds=self._seconds)
                found = msgspec.structs.replace(taken(found, self._clock.now()), told=self._clock.now())
        except LeaseHeldError:
            raise
        except CumulantError as error:
            self._failed(receiver, error, sending, version)
            return
        except Exception as error:  # noqa: BLE001 - the edge: a driver of others stops no other receiver
            wrong = TerminalError(f"a fault of its driver: {type(error).__name__}: {error}")
            self._failed(receiver, wrong, sending, version)
            return
        with journal.transaction(actor=ACTOR) as transaction:
            write(transaction, receiver.name, msgspec.structs.replace(found, holder=None, claimed=None), version)

    def _queue(self, receiver: Receiver) -> Iterator[tuple[str, Message]]:
        """Row and message of what is to be sent: that some were left out, then what waits, until nothing does."""
        journal = self._project.journal()
        missed = left_out(journal, receiver.name)
        if missed is not None and not receiver.keeps_state:
            yield "", _missed(self._project.name, missed.messages, missed.since, self._clock.now())
        while entries := waiting(journal, receiver.name):
            for entry in entries:
                yield entry.key, entry.message

    def _noted(
        self, receiver: Receiver, key: str, sent: Message, found: Standing, version: int, *, said: str
    ) -> tuple[Standing, int]:
        now = self._clock.now()
        after = taken(found, now)
        fact = MessageDelivered(
            receiver=receiver.name, message=sent.key, title=sent.title, failures=found.failures, said=said
        )
        with self._project.journal().transaction(actor=ACTOR) as transaction:
            version = write(transaction, receiver.name, after, version, fact)
            row = transaction.get(OUTBOX, key) if key else None
            if row is not None and msgspec.convert(row.value, Message).key == sent.key:
                transaction.delete(OUTBOX, key)
            if not key or receiver.keeps_state:
                transaction.delete(LEFT_OUT, receiver.name)
        self._taken.append(sent.key)
        return after, version

    def _failed(self, receiver: Receiver, error: CumulantError, sent: Message | None, version: int) -> None:
        """Noted; an event tells of the first failure of a row of them."""
        journal, now = self._project.journal(), self._clock.now()
        before, _ = standing(journal, receiver.name)
        fault = self._project.vault.redact(error.message)
        after = failed(before, error, fault, now)
        fact = ReceiverFailed(receiver=receiver.name, message=sent.key if sent else "", fault=fault)
        with journal.transaction(actor=ACTOR) as transaction:
            write(transaction, receiver.name, after, version, *([] if before.failures else [fact]))


def _missed(project: str, count: int, since: datetime, now: datetime) -> Message:
    text = (
        f"{count} messages since {since:%Y-%m-%d %H:%M} UTC were left out, because this receiver took none for long. "
        "`cumulant alerts list` shows what fires, `cumulant events list --kind alert.fired` what did."
    )
    return Message(
        key=f"left-out/{since.isoformat()}/{count}", kind="notice", status="notice", level="warning", model=project,
        rule="left_out", subject="messages", title=f"warning: {count} messages of {project} were left out",
        text=text, at=now,
    )  # fmt: skip

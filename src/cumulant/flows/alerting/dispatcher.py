"""Delivery: a thread a receiver, so that one that hangs delays no other.

A process that is killed between sending a message and noting it sends that one message again, under the same key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.flows.alerting.delivery import Delivery, messages_to_repeat
from cumulant.flows.alerting.outbox import due
from cumulant.flows.alerting.receiver_state import ReceiverState, claim, is_due, read_receiver_state

if TYPE_CHECKING:
    from cumulant.project.notifiers import Receiver
    from cumulant.project.project import Project

#: seconds that a receiver has for one message
SECONDS = 10.0


class Dispatcher:
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
            receiver_state, _ = read_receiver_state(journal, receiver.name)
            if is_due(receiver_state, now) and (
                due(journal, receiver.name, now) or messages_to_repeat(journal, receiver, receiver_state, now)
            ):
                thread = threading.Thread(target=self._serve, args=(receiver,), daemon=True)
                self._threads[receiver.name] = thread
                thread.start()

    def wait(self, seconds: float) -> list[str]:
        """Wait for deliveries; names of the receivers that are not done by then."""
        until = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        return [name for name, thread in self._threads.items() if thread.is_alive()]

    def _serve(self, receiver: Receiver) -> None:
        """All that waits for one receiver, until it fails or another process delivers to it."""
        journal = self._project.journal()
        try:
            claimed = claim(journal, receiver.name, self._clock.now())
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

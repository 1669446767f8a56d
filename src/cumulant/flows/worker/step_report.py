"""What a worker writes of a step while it runs: its newest report of progress; and whether it is still wanted."""

from __future__ import annotations

import threading
from typing import Self

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.core.events import Actor
from cumulant.flows.ledger.lease import LeaseHandle
from cumulant.ports.journal import Journal, Transaction
from cumulant.ports.step_outcome import StepProgress
from cumulant.ports.step_queue import QUEUED_STEP, QueuedStep, read_queued

_EVERY_SECONDS = 0.5


class StepRow:
    """The row of a step that this worker holds the lease of."""

    def __init__(self, journal: Journal, lease: LeaseHandle, *, key: str, request: str, actor: Actor) -> None:
        self.journal, self.lease, self.key, self.request, self.actor = journal, lease, key, request, actor

    def read(self, source: Journal | Transaction) -> QueuedStep | None:
        """The step, unless it was cancelled or is of another request by now."""
        row = source.get(QUEUED_STEP, self.key)
        step = None if row is None else read_queued(row)
        return None if step is None or step.request != self.request or step.status == "cancelled" else step

    def change(self, transaction: Transaction, **changes: object) -> QueuedStep | None:
        """Change the row; None where no caller waits for the step any more.

        Raises:
            LeaseHeldError: another worker has taken the step over.
        """
        self.lease.confirm(transaction)
        step = self.read(transaction)
        if step is None:
            return None
        changed = msgspec.structs.replace(step, **changes)
        transaction.put(QUEUED_STEP, self.key, msgspec.to_builtins(changed))
        return changed


class ProgressWriter:
    """The progress of a running step: called by the step, written from a thread while the block runs.

    `cancel` is set once the step is cancelled, or the lease is lost.
    """

    def __init__(self, row: StepRow, cancel: threading.Event, *, every: float = _EVERY_SECONDS) -> None:
        self._row, self._cancel, self._every = row, cancel, every
        self._newest: StepProgress | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cumulant-step-report", daemon=True)

    def __call__(self, text: str, share: float | None = None) -> None:
        self._newest = StepProgress(text, share)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        written: StepProgress | None = None
        while not self._stop.wait(self._every):
            try:
                newest = self._newest
                wanted = self._write(newest) if newest != written else self._is_wanted()
                written = newest
            except LeaseHeldError:
                wanted = False
            except CumulantError:  # the journal does not answer for a while; the lease decides
                continue
            if not wanted:
                self._cancel.set()
                return

    def _is_wanted(self) -> bool:
        self._row.lease.confirm(self._row.journal)
        return self._row.read(self._row.journal) is not None

    def _write(self, newest: StepProgress | None) -> bool:
        with self._row.journal.transaction(actor=self._row.actor) as transaction:
            return self._row.change(transaction, progress=newest) is not None

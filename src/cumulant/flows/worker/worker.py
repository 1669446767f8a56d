"""One worker: takes queued steps that it fits, each under a lease, and runs each in a process of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import (
    CumulantError,
    LeaseHeldError,
    MissingPartError,
    RetryableError,
    StepCancelledError,
    StepFailedError,
    StorageError,
)
from cumulant.core.events import Actor
from cumulant.core.version import __version__
from cumulant.flows.ledger.lease import LeaseWatch, take_lease
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.worker.step_report import ProgressWriter, StepRow
from cumulant.ports.step_outcome import StepOutcome, describe
from cumulant.ports.step_queue import (
    MOST_ATTEMPTS,
    QUEUED_STEP,
    QueuedStep,
    StepReturned,
    StepState,
    StepTaken,
    WorkerOffer,
    candidates,
    is_settled,
    lease_of,
    readable,
)

if TYPE_CHECKING:
    from cumulant.core.progress import Progress
    from cumulant.ports.compute import Compute, StepCall
    from cumulant.ports.journal import Journal, Row

LEASE_SECONDS = 60.0
_POLL_SECONDS = 1.0
_OUTAGE_PAUSE = 2.0
#: seconds after which this worker tries a step again that its machine could not run, as with a full disk
_MACHINE_PAUSE = 60.0
#: how long a settled row is kept, for a second caller that waits for the same step
_KEPT = timedelta(hours=1)

Ending = Literal["done", "failed", "left", "cancelled", "lost"]


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a step that a worker took.

    `left`: this worker cannot run it, for the reason in `note`; `cancelled`: no caller waits for it; `lost`: another
    worker has it.
    """

    step: str
    name: str
    ending: Ending
    attempt: int
    seconds: float
    note: str = ""

    @property
    def shown(self) -> str:
        return _shown(self.name, self.step)


class StepWorker:
    """Takes and runs steps of one journal, one at a time.

    Args:
        journal: where steps are queued.
        compute: runs a step in a process of this machine.
        prepare: makes a call one that can run here while the block lasts, such as with the project's code.
        forget: deletes what was stored for a call alone, once its row is deleted.
        offer: what this worker has for a step.
        progress: reports each step that begins, and reasons to wait.
        lease: seconds without a renewal after which another worker may take a step over.
    """

    def __init__(
        self,
        journal: Journal,
        compute: Compute,
        *,
        prepare: Callable[[StepCall], AbstractContextManager[StepCall]],
        forget: Callable[[StepCall], None] = lambda _: None,
        offer: WorkerOffer,
        actor: Actor,
        progress: Progress,
        clock: Clock | None = None,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._journal, self._compute, self._prepare, self._forget = journal, compute, prepare, forget
        self._offer, self._actor, self._progress = offer, actor, progress
        self._clock, self._lease = clock or SystemClock(), lease
        self._name = str(this_process())
        self._watch = LeaseWatch()
        self._refused: dict[str, float] = {}  # by request: until when, by the monotonic clock

    def work(self, stop: threading.Event, *, once: bool = False) -> Iterator[StepRun]:
        """Run steps until `stop` is set, or with `once` until none is queued that fits. `stop` lets a step end."""
        while not stop.is_set():
            try:
                head = self._journal.head().seq
                run = self._next()
                if run is None and not once:
                    self._journal.wait(head, _POLL_SECONDS)
            except RetryableError as error:
                if once:
                    raise
                self._progress(f"waiting for the journal: {error.message}")
                stop.wait(_OUTAGE_PAUSE)
                continue
            if run is not None:
                yield run
            elif once:
                return

    def _next(self) -> StepRun | None:
        """Take a step and run it; None where there is none."""
        rows = self._journal.rows(QUEUED_STEP)
        self._remove_settled(rows)
        now = time.monotonic()
        refused = {request for request, until in self._refused.items() if now < until}
        for row, step in candidates(rows, self._offer, version=__version__, refused=refused):
            name = lease_of(row.key)
            lease = take_lease(self._journal, name, ttl=self._lease, actor=self._actor, watch=self._watch)
            if lease is None:
                continue
            own = StepRow(self._journal, lease, key=row.key, request=step.request, actor=self._actor)
            with lease.renewed():
                taken = self._take(own)
                if taken is not None:
                    return self._run(own, taken)
        return None

    def _take(self, row: StepRow) -> QueuedStep | None:
        """Mark the step as running here; None where it has ended meanwhile, or ended too many workers."""
        with suppress(LeaseHeldError), self._journal.transaction(actor=self._actor) as transaction:
            step = row.read(transaction)
            if step is None or step.status not in ("queued", "running"):
                return None
            if step.status == "running" and step.attempts >= MOST_ATTEMPTS:
                row.change(transaction, status="ended", outcome=StepOutcome(error=describe(_lost_workers(step))))
                transaction.emit(self._returned(row, step, "ended"))
                return None
            transaction.emit(
                StepTaken(step=row.key, name=step.call.shown, worker=self._name, attempt=step.attempts + 1)
            )
            return row.change(
                transaction, status="running", worker=self._name, attempts=step.attempts + 1, progress=None, note=""
            )
        return None

    def _run(self, row: StepRow, step: QueuedStep) -> StepRun:
        self._progress(f"{_shown(step.call.shown, row.key)}: begins, attempt {step.attempts}")
        begun, cancel = time.monotonic(), threading.Event()

        def ended(ending: Ending, note: str = "") -> StepRun:
            return StepRun(
                step=row.key,
                name=step.call.shown,
                ending=ending,
                attempt=step.attempts,
                seconds=round(time.monotonic() - begun, 3),
                note=note,
            )

        of_machine: tuple[type[CumulantError], ...] = (MissingPartError, StorageError)
        with self._requeued_on_interrupt(row, step):
            try:
                with ProgressWriter(row, cancel) as report, self._prepare(step.call) as call:
                    of_machine = (MissingPartError,)  # from here on, a StorageError is the step's own
                    result = self._compute.run(call, cancel=cancel, progress=report)
            except of_machine as error:
                self._refuse(step, error)
                note = f"{self._name} cannot run it: {error.full_text}"
                self._return(row, status="queued", attempts=step.attempts - 1, note=note)
                return ended("left", error.full_text)
            except StepCancelledError:
                return ended("cancelled" if row.read(self._journal) is None else "lost")
            except CumulantError as error:
                written = self._return(row, status="ended", outcome=StepOutcome(error=describe(error)))
                return ended("failed" if written else "lost", error.message)
            written = self._return(row, status="ended", outcome=StepOutcome(result=result))
            return ended("done" if written else "lost")

    def _refuse(self, step: QueuedStep, error: CumulantError) -> None:
        """Leave the step to other workers: while this one lasts, or a while where the machine may be mended."""
        pause = math.inf if isinstance(error, MissingPartError) else _MACHINE_PAUSE
        self._refused[step.request] = time.monotonic() + pause

    @contextmanager
    def _requeued_on_interrupt(self, row: StepRow, step: QueuedStep) -> Iterator[None]:
        """Queue the step again where this process is interrupted: another worker has it at once.

        After any other error that ends this process, the row stays as that of a lost worker, which is counted.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            with suppress(CumulantError):
                self._return(row, status="queued", attempts=step.attempts - 1, note=f"{self._name} ended")
                self._progress(f"{_shown(step.call.shown, row.key)}: interrupted, queued again")
            raise

    def _return(self, row: StepRow, **changes: object) -> bool:
        """Write the last change of a step. False where no caller waits for it, or another worker has it.

        A journal that does not answer is waited for as long as the lease lasts: a result may be hours of work.
        """
        until = time.monotonic() + self._lease
        while True:
            try:
                with self._journal.transaction(actor=self._actor) as transaction:
                    changed = row.change(transaction, **changes)
                    if changed is not None:
                        transaction.emit(self._returned(row, changed, changed.status))
                    return changed is not None
            except LeaseHeldError:
                return False
            except RetryableError:
                if time.monotonic() > until:
                    raise
                self._clock.sleep(_OUTAGE_PAUSE)

    def _returned(self, row: StepRow, step: QueuedStep, status: StepState) -> StepReturned:
        return StepReturned(step=row.key, name=step.call.shown, worker=self._name, status=status, note=step.note)

    def _remove_settled(self, rows: list[Row]) -> None:
        before = self._clock.now() - _KEPT
        old = [(row, step) for row, step in readable(rows) if row.updated < before and is_settled(step)]
        if not old:
            return
        deleted = []
        with self._journal.transaction(actor=self._actor) as transaction:
            for row, step in old:
                present = transaction.get(row.kind, row.key)
                if present is not None and present.version == row.version:
                    transaction.delete(row.kind, row.key)
                    deleted.append(step.call)
        for call in deleted:
            self._forget(call)


def _shown(name: str, key: str) -> str:
    """A step in one line of a worker: its name, and enough of its key to find it in the events."""
    return f"{name} {key[:12]}"


def _lost_workers(step: QueuedStep) -> StepFailedError:
    return StepFailedError(
        f"{step.attempts} workers were lost while they ran step {step.call.shown}; the last was {step.worker}",
        subject=step.call.shown,
        hint="look at the logs of that machine: the step may take more memory than it has",
    )

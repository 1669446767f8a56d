"""`worker://`: a step is queued in the journal, and this process waits until a worker has run it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, RetryableError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.version import __version__
from cumulant.ports.compute import StepCall, check_cancelled
from cumulant.ports.journal import Journal
from cumulant.ports.step_outcome import StepOutcome, StepProgress
from cumulant.ports.step_queue import QUEUED_STEP, QueuedStep, StepQueued, can_adopt, read_queued

_ACTOR = Actor("service:compute")
#: how long an event of a worker is waited for until the row is read
_POLL_SECONDS = 0.5
#: seconds between two reports that no worker has taken the step yet
_REPORT_SECONDS = 5.0
#: how long the journal may fail to answer
_OUTAGE_SECONDS = 120.0
_OUTAGE_PAUSE = 1.0


class WorkerCompute:
    """Queues steps for the workers of the journal's project and environment."""

    def __init__(self, url: str = "worker://", *, journal: Callable[[], Journal], clock: Clock | None = None) -> None:
        self.url = url
        self._journal = journal
        self._clock = clock or SystemClock()

    def run(
        self,
        call: StepCall,
        *,
        key: str | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = silent,
    ) -> dict[str, object]:
        """Wait until a worker has run the step; adopts one of the same key that is queued, runs, or has a result that
        no caller has read.

        Raises:
            CumulantError: the step's own, as itself.
            StepCancelledError: `cancel` was set.
            RetryableError: workers were lost while they ran it, or the journal does not answer.
        """
        waiting = _Waiting(self._journal(), call, key or uuid.uuid4().hex, self._clock, progress)
        try:
            outcome = waiting.outcome(cancel)
        except BaseException:
            waiting.withdraw()
            raise
        return outcome.unwrap()


class _Waiting:
    """One caller that waits for one step."""

    def __init__(self, journal: Journal, call: StepCall, key: str, clock: Clock, progress: Progress) -> None:
        self._journal, self._call, self._key = journal, call, key
        self._clock, self._progress = clock, progress
        self._caller = uuid.uuid4().hex
        self._reported: StepProgress | None = None
        self._note = ""
        self._began = self._last_report = time.monotonic()
        self._failing_since: float | None = None

    def outcome(self, cancel: threading.Event | None) -> StepOutcome:
        """The outcome, once there is one. Raises StepCancelledError: `cancel` was set."""
        request: str | None = None
        while True:
            check_cancelled(self._call, cancel)
            try:
                request, outcome = self._poll(request)
            except RetryableError as error:
                self._wait_for_journal(error)
                continue
            if outcome is not None:
                return outcome

    def _poll(self, request: str | None) -> tuple[str, StepOutcome | None]:
        """Queue or adopt the step where that is not done yet, and wait for an event; its request, and its outcome."""
        head = self._journal.head().seq
        row = self._journal.get(QUEUED_STEP, self._key)
        step = None if row is None else read_queued(row)
        if step is None or request is None or (step.request != request or step.status == "cancelled"):
            step = self._queue()
        self._failing_since = None
        if step.status in ("ended", "collected") and step.outcome is not None:
            self._collect(step.request)
            return step.request, step.outcome
        self._report(step)
        self._journal.wait(head, _POLL_SECONDS)
        return step.request, None

    def _queue(self) -> QueuedStep:
        """Adopt the step, or queue it."""
        with self._journal.transaction(actor=_ACTOR) as transaction:
            row = transaction.get(QUEUED_STEP, self._key)
            step = None if row is None else read_queued(row)
            if step is not None and can_adopt(step, __version__):
                step = msgspec.structs.replace(step, caller=self._caller)
            else:
                step = QueuedStep(
                    call=self._call,
                    request=uuid.uuid4().hex,
                    caller=self._caller,
                    version=__version__,
                    queued=self._clock.now(),
                )
                transaction.emit(StepQueued(step=self._key, name=self._call.shown))
            transaction.put(QUEUED_STEP, self._key, msgspec.to_builtins(step))
        return step

    def _collect(self, request: str) -> None:
        """Note that the outcome was read, so that the next call of this key is a new one."""
        with self._journal.transaction(actor=_ACTOR) as transaction:
            row = transaction.get(QUEUED_STEP, self._key)
            step = None if row is None else read_queued(row)
            if step is not None and step.request == request and step.status == "ended":
                collected = msgspec.structs.replace(step, status="collected")
                transaction.put(QUEUED_STEP, self._key, msgspec.to_builtins(collected))

    def withdraw(self) -> None:
        """Cancel the step, unless another caller waits for it or it has ended."""
        try:
            with self._journal.transaction(actor=_ACTOR) as transaction:
                row = transaction.get(QUEUED_STEP, self._key)
                step = None if row is None else read_queued(row)
                if step is not None and step.caller == self._caller and step.status in ("queued", "running"):
                    cancelled = msgspec.structs.replace(step, status="cancelled")
                    transaction.put(QUEUED_STEP, self._key, msgspec.to_builtins(cancelled))
        except CumulantError:  # the reason for withdrawing is the error to report; the step runs on unread
            return

    def _report(self, step: QueuedStep) -> None:
        if step.progress is not None and step.progress != self._reported:
            self._reported = step.progress
            self._progress(step.progress.text, step.progress.share)
        now = time.monotonic()
        if step.status == "queued" and (now - self._last_report >= _REPORT_SECONDS or step.note != self._note):
            self._last_report, self._note = now, step.note
            reason = step.note or "start `cumulant worker` in this environment"
            self._progress(f"{self._call.shown} waits for a worker ({now - self._began:.0f} s): {reason}")

    def _wait_for_journal(self, error: RetryableError) -> None:
        """Wait a little where the journal does not answer; raise its error where it has not for long."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now - self._failing_since > _OUTAGE_SECONDS:
            raise error
        self._progress(f"{self._call.shown} waits for the journal: {error.message}")
        self._clock.sleep(_OUTAGE_PAUSE)

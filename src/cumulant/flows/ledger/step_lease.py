"""The lease of a step: taken with its row, renewed by raising the row's version, lost when that stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from cumulant.core.clock import Clock
from cumulant.core.errors import LeaseHeldError, StepCancelledError
from cumulant.core.progress import Progress
from cumulant.flows.ledger.lease import LeaseWatch
from cumulant.flows.ledger.ledger_records import STEP, StepRecord, recorded_error
from cumulant.flows.ledger.run_events import StepStarted
from cumulant.ports.journal import Row, Transaction

_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.02, 0.5, 1.5
_SAY_EVERY = 1.0

#: how the work of a step ends whose lease another process has taken
OVERTAKEN = (LeaseHeldError, StepCancelledError)


def take_step(
    tx: Transaction, key: str, record: StepRecord, row: Row | None, previous: StepRecord | None, *, cause: str | None
) -> tuple[int, str]:
    """Write the running row over `row`; its version, and the id of its event. Raises LeaseHeldError."""
    lapsed = str(previous.holder) if previous and previous.status == "running" else None
    written = tx.put(STEP, key, msgspec.to_builtins(record), expect=row.version if row else 0)
    fact = StepStarted(step=key, name=record.name, attempt=record.attempt, taken_from=lapsed)
    return written.version, tx.emit(fact, cause=cause).id


class StepHeartbeat:
    """The version of a step's row as this process last wrote it; `write` takes it and returns the next one.

    `lost` is set once another process has taken the step over.
    """

    def __init__(self, write: Callable[[int], int], version: int, *, lost: threading.Event) -> None:
        self._write = write
        self._lost = lost
        self.version = version

    def beat(self) -> None:
        try:
            self.version = self._write(self.version)
        except LeaseHeldError:
            self._lost.set()
            raise


class StepWatch:
    """Waits for a step that another process runs; reports when it may be taken over or has failed."""

    def __init__(self, step: str, *, clock: Clock, progress: Progress) -> None:
        self._step = step
        self._clock = clock
        self._progress = progress
        self._began = self._said = time.monotonic()
        self._pause = _POLL_FIRST
        self._watch = LeaseWatch()
        self._attempt = 0

    def may_take(self, row: Row, record: StepRecord) -> bool:
        """Whether the lease of a running step has ended, by this process's own monotonic clock."""
        self._attempt = record.attempt
        return self._watch.has_lapsed(row.key, row.version, ttl=record.lease, holder=record.holder)

    def saw(self, attempt: int) -> bool:
        """Whether this process waited for that attempt."""
        return self._attempt == attempt

    def pause(self, record: StepRecord) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY:
            self._said = now
            self._progress(f"waiting for {self._step}: {record.holder} works on it ({now - self._began:.0f} s)")
        self._clock.sleep(self._pause)
        self._pause = min(self._pause * _POLL_GROWTH, _POLL_LAST)


def raise_failure(record: StepRecord, watch: StepWatch) -> None:
    """Raise the error of a step that failed while this process waited for it, unless another try may help."""
    if record.status == "failed" and record.error and watch.saw(record.attempt) and not record.error.get("retryable"):
        raise recorded_error(record.error, record.name)

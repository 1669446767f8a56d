"""The lease of a step: taken with its row, kept by raising the row's version again and again, lost when that stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

import msgspec

from cumulant.core.clock import Clock
from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.core.progress import Progress
from cumulant.flows.ledger.ledger_records import STEP, StepRecord
from cumulant.flows.ledger.processes import is_gone
from cumulant.flows.ledger.run_events import StepStarted
from cumulant.ports.journal import Row, Transaction

BEATS = 6
"""How often a holder speaks in one lease."""
_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.02, 0.5, 1.5
_SAY_EVERY = 1.0


def take_lease(
    tx: Transaction, key: str, record: StepRecord, row: Row | None, previous: StepRecord | None, *, cause: str | None
) -> tuple[int, str]:
    """Write the running row over `row`; its version, and the id of its event. Raises LeaseHeldError."""
    lapsed = str(previous.holder) if previous and previous.status == "running" else None
    written = tx.put(STEP, key, msgspec.to_builtins(record), expect=row.version if row else 0)
    fact = StepStarted(step=key, name=record.name, attempt=record.attempt, taken_from=lapsed)
    return written.version, tx.emit(fact, cause=cause).id


class LeaseRenewal:
    """Raises the row's version from a thread while the block runs.

    `beat` takes the version held and returns the one written; it raises LeaseHeldError once the lease is lost,
    and then the heart stops. Other errors (a busy journal, a full disk) may pass before the lease ends.
    """

    def __init__(self, beat: Callable[[int], int], *, version: int, every: float) -> None:
        self.version = version
        self._beat = beat
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cumulant-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A beat under way is waited for: `version` must be the last one written.
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.version = self._beat(self.version)
            except LeaseHeldError:
                return
            except CumulantError:
                continue


class LeaseWatch:
    """Waits for a step that another process runs; reports when it may be taken over or has failed."""

    def __init__(self, step: str, *, clock: Clock, progress: Progress) -> None:
        self._step = step
        self._clock = clock
        self._progress = progress
        self._began = self._said = time.monotonic()
        self._pause = _POLL_FIRST
        self._version: int | None = None
        self._since = 0.0
        self._attempt = 0

    def may_take(self, row: Row, record: StepRecord) -> bool:
        """Whether the lease of a running step has ended, by this process's own monotonic clock."""
        now = time.monotonic()
        self._attempt = record.attempt
        if row.version != self._version:
            self._version, self._since = row.version, now
        return now - self._since > record.lease or is_gone(record.holder)

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

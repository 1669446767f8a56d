"""Reporting of events to the journal, which may be busy or full without blocking a process."""

from __future__ import annotations

import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from cumulant.core.errors import CumulantError
from cumulant.core.events import Fact
from cumulant.flows.stack.events import ACTOR, ProcessEnded, ProcessStarted, line_of

if TYPE_CHECKING:
    from cumulant.flows.stack.status import Status
    from cumulant.project.project import Project

_MOST, _PAUSE, _PATIENCE = 1000, 5.0, 5.0

Reported = TypeVar("Reported", bound=Fact)


class EventQueue(Generic[Reported]):
    """Writes events from a thread, each as soon as the journal takes it. Of too many that wait, the newest is lost.

    `emit` writes one event; it is called by one thread.
    """

    def __init__(self, emit: Callable[[Reported], None], *, pause: float = _PAUSE) -> None:
        self._emit, self._pause = emit, pause
        self._waiting: queue.Queue[Reported | None] = queue.Queue(_MOST)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cumulant-events", daemon=True)
        self._thread.start()

    def put(self, fact: Reported) -> None:
        try:
            self._waiting.put_nowait(fact)
        except queue.Full:
            sys.stderr.write("too many events wait for the journal: this one is only in this log\n")

    def close(self, *, patience: float = _PATIENCE) -> None:
        """Write what waits, for a few seconds at most."""
        self._ending.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(patience)

    def _work(self) -> None:
        while (fact := self._waiting.get()) is not None:
            self._write(fact)

    def _write(self, fact: Reported) -> None:
        until, reported = time.monotonic() + _PATIENCE, False
        while True:
            try:
                self._emit(fact)
            except (CumulantError, OSError, sqlite3.Error) as error:
                if not reported:
                    sys.stderr.write(f"an event waits for the journal: {error}\n")
                reported = True
            else:
                return
            if self._ending.wait(self._pause) and time.monotonic() > until:
                return
            if self._ending.is_set():
                time.sleep(min(self._pause, 0.2))


class Reporter(EventQueue[ProcessStarted | ProcessEnded]):
    """Writes a line at once, and the event as soon as the journal takes it."""

    def __call__(self, fact: ProcessStarted | ProcessEnded) -> None:
        sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line_of(fact)}\n")
        self.put(fact)


def emit(project: Project, fact: ProcessStarted | ProcessEnded) -> None:
    """Raises CumulantError where the journal does not take it."""
    with project.journal().transaction(actor=ACTOR) as transaction:
        transaction.emit(fact)


def report_killed(project: Project, status: Status | None) -> None:
    """Report the end of a supervisor that could not do it itself; `status` is what it left."""
    if status is None or status.running:
        return
    fact = ProcessEnded(
        name="supervisor",
        process="supervisor",
        pid=status.supervisor.pid,
        cause=f"it was killed after {status.at:%Y-%m-%d %H:%M:%SZ}, and its processes with it",
        seconds=round((status.at - status.since).total_seconds(), 1),
    )
    with suppress(CumulantError, OSError, sqlite3.Error):  # what comes next matters more
        emit(project, fact)

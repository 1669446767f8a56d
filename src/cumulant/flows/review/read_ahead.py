"""What the next cases of a reviewer need of the log and the registry, read before the reviewer comes to them.

It stays in the memory of the server. A reviewer is given a case when it is their turn: that is the read which an event
records, and it is blind where that is declared. Nothing of a later case is sent before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cumulant.core.clock import SystemClock
from cumulant.core.errors import CumulantError
from cumulant.flows.ledger.actions import verb
from cumulant.flows.review.case_context import CaseReader
from cumulant.flows.review.service import open_queue, reviewer_of
from cumulant.review import transitions

if TYPE_CHECKING:
    from cumulant.flows.review.case_index import CaseIndex
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.review.cases import ReviewCase

#: cases that are read ahead
NEXT = 5
#: seconds after which everything is read again: an erasure that was cut off reports nothing
_AGE = 120.0
_ERASED = "subjects.erased"


class ReadAhead:
    """Of one project. Threads may share it."""

    def __init__(self, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._lock = threading.Lock()
        self._reader: CaseReader | None = None
        self._made_at, self._seq = 0.0, 0
        self._thread: threading.Thread | None = None

    def reader(self, project: Project) -> CaseReader:
        """What was read ahead; an empty reader where that is old, or a subject was erased since."""
        journal = project.journal()
        with self._lock:
            head = journal.head().seq
            old = self._reader is None or self._steady() - self._made_at > _AGE
            if old or any(journal.events(after=self._seq, limit=1, kinds=(_ERASED,))):
                self._reader, self._made_at = CaseReader(project), self._steady()
            self._seq = head
            assert self._reader is not None
            return self._reader

    def read(self, reader: CaseReader, cases: list[ReviewCase]) -> None:
        """Read the cases in a thread, unless one reads already."""
        with self._lock:
            if cases and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=_read, args=(reader, cases), daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the thread has read, at most so long."""
        if (thread := self._thread) is not None:
            thread.join(seconds)


def _read(reader: CaseReader, cases: list[ReviewCase]) -> None:
    with suppress(CumulantError):  # whoever comes to the case gets the error
        reader.expect(cases)
        for case in cases:
            reader.row(case)
            reader.described(case.model, case.version)
            reader.reference(case.model, case.version)


@verb("review.show")
def read_next(project: Project, index: CaseIndex, ahead: ReadAhead, *, principal: Principal) -> list[str]:
    """Let the server read the next cases of a reviewer ahead; their ids. Whoever leases one first gets it.

    Raises:
        UsageError: there is no queue.
    """
    queue, now, who = open_queue(project), SystemClock().now(), reviewer_of(principal)
    waiting = index.lists(project.journal(), queue, now).waiting
    fit = (case for case in waiting if transitions.is_open_to(case, who, queue.policy, now))
    cases = sorted(fit, key=lambda case: transitions.rank(case, who))[:NEXT]
    ahead.read(ahead.reader(project), cases)
    return [case.id for case in cases]

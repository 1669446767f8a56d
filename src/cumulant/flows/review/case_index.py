"""The cases of a queue in memory, for servers: read once, and then brought up to date by the events since."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from cumulant.core.errors import NotFoundError
from cumulant.review.events import AnswersLabelled, CaseClosed, CaseMoved, CasesQueued
from cumulant.review.queue import ReviewQueue

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project
    from cumulant.review.cases import ReviewCase

_OF_ONE = (CaseMoved.kind, CaseClosed.kind)
#: events after which all cases are read; an erasure deletes cases and is reported when it has ended
_OF_MANY = (CasesQueued.kind, AnswersLabelled.kind, "subjects.erased")
#: seconds after which all are read anyway: an erasure that was cut off reports nothing
_AGE = 300.0


class CaseIndex:
    """All cases of one queue. Each change of a case is written with an event, so that only these are read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seq: int | None = None
        self._read_at = 0.0
        self._cases: dict[str, ReviewCase] = {}

    def cases(self, journal: Journal, queue: ReviewQueue) -> Sequence[ReviewCase]:
        """Waiting and closed cases as they are stored now."""
        with self._lock:
            head = journal.head().seq  # first: what is written meanwhile is read again next time
            old = self._seq is None or time.monotonic() - self._read_at > _AGE
            changed = None if old or self._seq is None else self._changed(journal, self._seq)
            if changed is None:
                self._read_at = time.monotonic()
                self._cases = {case.id: case for case in (*queue.closed(), *queue.open())}
            else:
                for case in changed:
                    self._read_one(queue, case)
            self._seq = head
            return list(self._cases.values())

    def _changed(self, journal: Journal, after: int) -> set[str] | None:
        """The cases that events name since then; None where an event is of many."""
        changed: set[str] = set()
        for event in journal.events(after=after, kinds=(*_OF_ONE, *_OF_MANY)):
            if event.kind in _OF_MANY:
                return None
            changed.add(str(event.data["case"]))
        return changed

    def _read_one(self, queue: ReviewQueue, case: str) -> None:
        try:
            self._cases[case] = queue.find(case)
        except NotFoundError:  # of another queue, or removed
            self._cases.pop(case, None)


class CaseIndexes:
    """One index a project, as long as the project is loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: WeakKeyDictionary[Project, CaseIndex] = WeakKeyDictionary()

    def of(self, project: Project) -> CaseIndex:
        with self._lock:
            return self._indexes.setdefault(project, CaseIndex())

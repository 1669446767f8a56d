"""The cases of a queue in memory, for servers: read once, and then brought up to date by the events since."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.review import transitions
from cumulant.review.cases import ReviewCase
from cumulant.review.events import AnswersLabelled, CaseClosed, CaseMoved, CasesQueued
from cumulant.review.queue import ReviewQueue

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.review.policy import ReviewPolicy

_OF_ONE = (CaseMoved.kind, CaseClosed.kind)
#: events after which all cases are read; an erasure deletes cases and is reported when it has ended
_OF_MANY = (CasesQueued.kind, AnswersLabelled.kind, "subjects.erased")
#: seconds after which all are read anyway: an erasure that was cut off reports nothing
_AGE = 300.0


class CaseLists(msgspec.Struct, frozen=True, kw_only=True):
    """The cases after the deadlines that have passed: waiting ones in their order, closed ones the oldest first.

    `until`: the next deadline of a waiting case; None: there is none.
    """

    waiting: Sequence[ReviewCase]
    done: Sequence[ReviewCase]
    expired: Sequence[ReviewCase]
    escalated: int
    unlabelled: int
    until: datetime | None


class CaseIndex:
    """All cases of one queue. Each change of a case is written with an event, so that only these are read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seq: int | None = None
        self._read_at = 0.0
        self._cases: dict[str, ReviewCase] = {}
        self._lists: CaseLists | None = None

    def cases(self, journal: Journal, queue: ReviewQueue) -> Sequence[ReviewCase]:
        """Waiting and closed cases as they are stored now."""
        with self._lock:
            self._update(journal, queue)
            return list(self._cases.values())

    def lists(self, journal: Journal, queue: ReviewQueue, now: datetime) -> CaseLists:
        """The cases as they are at `now`; sorted again only where one has changed or a deadline has passed."""
        with self._lock:
            self._update(journal, queue)
            if self._lists is None or (self._lists.until is not None and now >= self._lists.until):
                self._lists = case_lists(self._cases.values(), queue.policy, now)
            return self._lists

    def _update(self, journal: Journal, queue: ReviewQueue) -> None:
        head = journal.head().seq  # first: what is written meanwhile is read again next time
        old = self._seq is None or time.monotonic() - self._read_at > _AGE
        if head == self._seq and not old:
            return
        changed = None if old or self._seq is None else self._changed(journal, self._seq)
        if changed is None:
            self._read_at = time.monotonic()
            self._cases = {case.id: case for case in (*queue.closed(), *queue.open())}
        else:
            for case in changed:
                self._read_one(queue, case)
        if changed is None or changed:
            self._lists = None
        self._seq = head

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


def case_lists(cases: Iterable[ReviewCase], policy: ReviewPolicy, now: datetime) -> CaseLists:
    current = [transitions.at_deadline(case, policy, now) for case in cases]
    waiting = sorted((case for case in current if case.status == "waiting"), key=lambda case: (case.order, case.id))
    closed = [case for case in current if case.status != "waiting"]
    closed.sort(key=lambda case: (case.closed or case.queued, case.id))
    done = [case for case in closed if case.status == "done"]
    return CaseLists(
        waiting=waiting,
        done=done,
        expired=[case for case in closed if case.status == "expired"],
        escalated=sum(case.escalated for case in waiting),
        unlabelled=sum(not case.labelled for case in done),
        until=min((case.deadline for case in waiting), default=None),
    )

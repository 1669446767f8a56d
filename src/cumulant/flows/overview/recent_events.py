"""What the newest events of a project say, in memory: read once, and then brought up to date by the events since."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cumulant.flows.overview.changes import CHANGE_KINDS, SEARCHED, Change, change_of
from cumulant.review.events import AnswersLabelled, CaseClosed, CaseMoved, CasesQueued
from cumulant.review.queue import OPEN

if TYPE_CHECKING:
    from cumulant.core.events import Event
    from cumulant.ports.journal import Journal

#: events with which the number of open cases changes
_OF_CASES = frozenset({CaseMoved.kind, CaseClosed.kind, CasesQueued.kind, AnswersLabelled.kind, "subjects.erased"})
_GATE = "training.gate_decided"
_OF_VERSIONS = (*sorted({*CHANGE_KINDS, _GATE}),)
_KINDS = (*sorted({*_OF_VERSIONS, *_OF_CASES}),)


class RecentEvents:
    """Of one project. Threads may share it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._seq = 0
        self._changes: list[Change] = []
        self._candidate: str | None = None
        #: the newest run with a gate, where the gate refused its version
        self._refused: str | None = None
        self._cases: int | None = None

    def update(self, journal: Journal) -> None:
        """Read the events since the last call; after many, the newest `SEARCHED` of the kinds that are kept."""
        with self._lock:
            head = journal.head().seq
            if head < self._seq:  # the journal was restored to an earlier moment
                self._seq, self._changes, self._candidate, self._cases = 0, [], None, None
            if head - self._seq > SEARCHED:
                self._cases = None
                self._take(_newest(journal, self._seq, head))
            elif head > self._seq:
                self._take(journal.events(after=self._seq, kinds=_KINDS))
            self._changes = self._changes[-SEARCHED:]
            if self._cases is None:
                self._cases = journal.count(OPEN, f"{self._model}/")
            self._seq = head

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind in _OF_CASES:
                self._cases = None
            elif event.kind == _GATE:
                self._refused = None if event.data.get("passed") else event.run
            elif (change := change_of(event)) is not None:
                self._changes.append(change)
            if event.kind == "model.aliased":
                self._take_alias(event)

    def _take_alias(self, event: Event) -> None:
        if (event.data.get("model"), event.data.get("alias")) == (self._model, "candidate"):
            version = event.data.get("version")
            refused = event.run is not None and event.run == self._refused
            self._candidate = None if version is None or refused else str(version)

    @property
    def changes(self) -> list[Change]:
        """The changes among the newest events, the newest first."""
        with self._lock:
            return self._changes[::-1]

    @property
    def candidate(self) -> str | None:
        """The version that has the alias `candidate`, as far as the newest events say: a training gave it, a release
        takes it away. None where the gate refused it, since no release without its name begins.
        """
        return self._candidate

    @property
    def open_cases(self) -> int:
        return self._cases or 0


def _newest(journal: Journal, after: int, head: int) -> list[Event]:
    """The newest `SEARCHED` events of versions above number `after`, in order, however many others are between them.

    Parts of the chain are read from its end on, each twice as long as the one before.
    """
    events: list[Event] = []
    end, length = head + 1, SEARCHED
    while end > after + 1 and len(events) < SEARCHED:
        begin = max(after, end - 1 - length)
        events = [*journal.events(after=begin, before=end, kinds=_OF_VERSIONS), *events]
        end, length = begin + 1, 2 * length
    return events[-SEARCHED:]

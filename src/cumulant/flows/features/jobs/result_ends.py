"""How far the topic of a job's results goes: by what was written, committed or not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cumulant.core.errors import EngineUnavailableError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cumulant.flows.features.jobs.job_record import FeatureJobRecord
    from cumulant.ports.streams import Bounds

#: seconds until brokers have marked the ends of committed transactions, and between two questions
_MARKED, _PAUSE = 30.0, 0.2


class ResultTopics(Protocol):
    """What is needed of the ports `Streams` and `JobTopics`."""

    def create_topic(self, topic: str, partitions: int) -> bool: ...

    def ends(self, topic: str) -> dict[int, int]: ...

    def bounds(self, topic: str) -> dict[int, Bounds]: ...


class ResultEnds:
    """Reads positions of topics; `sleep`: between two questions."""

    def __init__(self, topics: ResultTopics, sleep: Callable[[float], None]) -> None:
        self._topics, self._sleep = topics, sleep

    def ends(self, topic: str) -> dict[int, int]:
        """By partition; empty where there is no such topic."""
        try:
            return dict(self._topics.ends(topic))
        except NotFoundError:
            return {}

    def last_ends(self, topic: str, record: FeatureJobRecord | None, *, committed: bool) -> tuple[dict[int, int], bool]:
        """How far a job that has ended has written, and whether that is exact; where the brokers are away, how far it
        was at its start. `committed`: it has ended with a savepoint.
        """
        try:
            return self._marked_ends(topic) if committed else (self.ends(topic), False)
        except EngineUnavailableError:
            return {} if record is None else record.begun, False

    def _marked_ends(self, topic: str) -> tuple[dict[int, int], bool]:
        """How far a topic goes that nobody writes to, and whether all of its transactions have ended."""
        deadline = time.monotonic() + _MARKED
        while True:
            ends = self.ends(topic)
            if not ends:
                return ends, True
            committed = self._topics.bounds(topic)
            if all(committed[partition].end == end for partition, end in ends.items()):
                return ends, True
            if time.monotonic() > deadline:
                return ends, False
            self._sleep(_PAUSE)

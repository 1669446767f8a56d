"""Queue of scoring jobs: by priority, and fair between clients of equal priority."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from cumulant.servable.engine import Array


class SequencePosition(msgspec.Struct, frozen=True, gc=False):
    """Position of a request in a sequence of requests that share state."""

    #: which sequence
    key: bytes
    starts: bool = False
    ends: bool = False
    #: the request is to be the sequence's `step`th, from 1 on; None: the next, whichever that is
    step: int | None = None


class Demand(msgspec.Struct, frozen=True, gc=False):
    """Scheduling parameters of a request: `deadline` by `time.perf_counter`, lower `priority` first, client."""

    deadline: float | None = None
    priority: int = 0
    client: str = ""
    #: None: of no sequence
    turn: SequencePosition | None = None


class ScoringJob:
    """Queued rows of one request."""

    __slots__ = ("demand", "feeds", "future", "rows", "signature", "since", "took", "waited")

    def __init__(
        self, feeds: Mapping[str, Array], rows: int, demand: Demand, future: asyncio.Future[list[Array]]
    ) -> None:
        self.feeds = feeds
        self.rows = rows
        self.demand = demand
        self.future = future
        self.since = time.perf_counter()
        #: seconds until its run began, and of the run
        self.waited = self.took = 0.0
        #: jobs of equal signature can be scored together
        self.signature: tuple[Any, ...] = tuple((name, array.shape[1:]) for name, array in feeds.items())


class JobQueue:
    """Queue of jobs. Of equal priority, clients take turns with their oldest job."""

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[str, deque[ScoringJob]]] = {}
        self.rows = self.jobs = 0
        self._waiting_rows: dict[str, int] = {}

    def __len__(self) -> int:
        return self.jobs

    def __iter__(self) -> Iterator[ScoringJob]:
        for level in self._levels.values():
            for jobs in level.values():
                yield from jobs

    def put(self, job: ScoringJob) -> None:
        level = self._levels.setdefault(job.demand.priority, OrderedDict())
        level.setdefault(job.demand.client, deque()).append(job)
        self._count(job, 1)

    def take(self, fits: Callable[[ScoringJob], bool]) -> ScoringJob | None:
        """The next job, where it fits; None where it does not, or nothing waits."""
        for priority in sorted(self._levels):
            level = self._levels[priority]
            client = next(iter(level))
            job = level[client][0]
            if not fits(job):
                return None
            level[client].popleft()
            if level[client]:
                level.move_to_end(client)
            else:
                del level[client]
                if not level:
                    del self._levels[priority]
            self._count(job, -1)
            return job
        return None

    def evict(self, demand: Demand, rows: int) -> ScoringJob | None:
        """The newest job that must give way to a request of `demand` with `rows`: one of lower priority,
        or one of equal priority of a client that holds more than its share, while the newcomer stays below that.
        """
        if not self._levels:
            return None
        worst = max(self._levels)
        if worst < demand.priority:
            return None
        level = self._levels[worst]
        if worst == demand.priority:
            share = (self.rows + rows) / (len(self._waiting_rows) + (demand.client not in self._waiting_rows))
            if self.waiting_rows(demand.client) + rows > share:
                return None
            client = max(level, key=self.waiting_rows)
            if client == demand.client or self.waiting_rows(client) <= share:
                return None
        else:
            client = max(level, key=self.waiting_rows)
        job = level[client].pop()
        if not level[client]:
            del level[client]
            if not level:
                del self._levels[worst]
        self._count(job, -1)
        return job

    def waiting_rows(self, client: str) -> int:
        """Rows of a client that wait."""
        return self._waiting_rows.get(client, 0)

    def _count(self, job: ScoringJob, sign: int) -> None:
        self.rows += sign * job.rows
        self.jobs += sign
        waiting = self._waiting_rows.get(job.demand.client, 0) + sign * job.rows
        if waiting > 0:
            self._waiting_rows[job.demand.client] = waiting
        else:
            self._waiting_rows.pop(job.demand.client, None)

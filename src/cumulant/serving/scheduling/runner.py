"""Runner of one model's engine: inline while idle and cheap, else batched on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cumulant.core.errors import CumulantError, DeadlineError, OutOfMemoryError, OverloadedError, RequestError
from cumulant.core.servable import TensorSpec
from cumulant.servable.engine import Array, Engine
from cumulant.serving.cache.answer_cache import AnswerCache, Caching
from cumulant.serving.histogram import ROWS, SECONDS, Histogram
from cumulant.serving.scheduling.cost import RunCost
from cumulant.serving.scheduling.job_queue import Demand, JobQueue, ScoringJob
from cumulant.serving.scheduling.run_observer import RUN, RunObserver

if TYPE_CHECKING:
    from cumulant.serving.cache.shared_answers import SharedAnswers

Feeds = Mapping[str, Array]

_NO_DEMAND = Demand()
#: rows of the runs that teach the cost before the first request
_SIZES = (1, 8, 32)
#: each is run that often at least, and more often while that takes less than these seconds: others use the machine too
_REPEATS, _MOST_REPEATS, _PATIENCE = 3, 20, 0.1


class Scheduling(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds in seconds and rows."""

    #: runs shorter than this stay on the event loop: handing them to a thread costs more
    inline: float = 0.0004
    #: the longest that a request may wait for its turn before it is refused instead
    queue: float = 0.04
    #: the longest run that gathering may make
    batch: float = 0.01
    batch_rows: int = 1024
    caching: Caching = Caching()


class Runner:
    """Runs an engine for many requests.

    `exact`: rows of different requests may be scored together, since that changes no bit of an answer. What waits is
    bounded by the time that it would take; beyond that, requests are refused at once. Use it from one event loop.
    """

    def __init__(
        self,
        engine: Engine,
        outputs: Sequence[str],
        *,
        exact: bool,
        scheduling: Scheduling | None = None,
        caching: Caching | None = None,
    ) -> None:
        self._engine, self._outputs = engine, list(outputs)
        self._bounds = scheduling or Scheduling()
        self.exact = exact
        #: gathering saves time, by what was measured
        self.pays = exact
        self.cost = RunCost()
        self.queue = JobQueue()
        self.refused = 0
        self.observer: RunObserver | None = None
        self.cache = AnswerCache(caching or self._bounds.caching)
        #: answers that other servers may have given; None: there is no such cache
        self.shared: SharedAnswers | None = None
        #: seconds that requests waited for their run, seconds of runs, rows of the runs that gathered
        self.waited, self.ran, self.gathered = Histogram(SECONDS), Histogram(SECONDS), Histogram(ROWS)
        self._busy_until = 0.0
        self._busy = self._closed = False
        self._inbox: SimpleQueue[list[ScoringJob] | None] = SimpleQueue()
        #: of the line, and of whether the engine's thread is busy
        self._lock = Lock()
        self._thread: Thread | None = None

    @property
    def outputs(self) -> list[str]:
        """Names of the engine's outputs."""
        return list(self._outputs)

    @property
    def longest_wait(self) -> float:
        """Seconds of waiting beyond which requests are refused."""
        return self._bounds.queue

    def specs(self) -> list[TensorSpec]:
        """Declared datatype and shape of these outputs."""
        known = {spec.name: spec for spec in self._engine.outputs}
        return [known[name] for name in self._outputs]

    # --- before the first request

    def measure(self, example: Callable[[int], Feeds]) -> None:
        """Learn the cost from made-up rows, and whether scoring together changes answers or saves time.

        `example(rows)` makes the feeds. A graph that refuses them is left to learn from requests, one at a time.
        """
        try:
            seconds = self._least({rows: example(rows) for rows in _SIZES})
            self.exact = self.exact and self._is_exact(example(_SIZES[1]))
        except (RequestError, OutOfMemoryError, MemoryError):  # the last one: of feeds and state, which numpy allocates
            self.exact = self.pays = False
            return
        for rows, took in seconds.items():
            self.cost.learn(rows, took)
        self.pays = self.exact and seconds[8] / 8 < 0.8 * seconds[1]

    def try_run(self, feeds: Feeds) -> list[Array]:
        """Outputs of the engine without queueing, for a model that is not served yet.

        Raises:
            CumulantError: as `packaging.Engine.run`.
        """
        return self._engine.run(feeds, self._outputs)

    def _least(self, feeds: Mapping[int, Feeds]) -> dict[int, float]:
        """Least seconds of a run of each size, measured in turns."""
        least = dict.fromkeys(feeds, float("inf"))
        end = time.perf_counter() + _PATIENCE
        for turn in range(_MOST_REPEATS):
            if turn >= _REPEATS and time.perf_counter() > end:
                break
            for rows, example in feeds.items():
                least[rows] = min(least[rows], self._time(example))
        return least

    def _time(self, feeds: Feeds) -> float:
        started = time.perf_counter()
        self._engine.run(feeds, self._outputs)
        return time.perf_counter() - started

    def _is_exact(self, feeds: Feeds) -> bool:
        rows = len(next(iter(feeds.values())))
        together = self._engine.run(feeds, self._outputs)
        if any(array.shape[:1] != (rows,) for array in together):
            return False
        for row in range(rows):
            alone = self._engine.run({name: array[row : row + 1] for name, array in feeds.items()}, self._outputs)
            if any(a.tobytes() != t[row : row + 1].tobytes() for a, t in zip(alone, together, strict=True)):
                return False
        return True

    # --- requests

    def run_now(self, feeds: Feeds, rows: int) -> list[Array] | None:
        """Outputs, where nothing waits and the run is short; else None, and `run_later` must be called.

        Raises:
            RequestError: as `Engine.run`.
        """
        expected = self.cost.fixed + rows * self.cost.each
        key = self.cache.key(feeds, expected)
        if key is None and self.shared is not None:
            key = self.shared.key(feeds, expected)
        if key is not None and (known := self.cache.get(key)) is not None:
            if self.observer is not None:
                self.observer.record_hit()
            return known
        if self._busy or expected > self._bounds.inline:
            return None
        if self.shared is not None and key is not None and self.shared.pays(expected):
            return None
        started = time.perf_counter()
        outputs = self._engine.run(feeds, self._outputs)
        seconds = time.perf_counter() - started
        self.cost.learn(rows, seconds)
        self.ran.observe(seconds)
        if self.observer is not None:
            self.observer.record_stage(RUN, started, seconds)
        if key is not None:
            self.cache.put(key, outputs)
            if self.shared is not None:
                self.shared.store(key, outputs, expected)
        return outputs

    async def run_later(self, feeds: Feeds, rows: int, demand: Demand = _NO_DEMAND) -> list[Array]:
        """Outputs, after queueing.

        Raises:
            RequestError: as `Engine.run`.
            OverloadedError: it would wait for too long.
            DeadlineError: it could not be answered by its deadline, or was not.
        """
        expected = self.cost.estimate(rows)
        key = self.cache.key(feeds, expected)
        if key is None and self.shared is not None:
            key = self.shared.key(feeds, expected)
        if self.shared is not None and (known := await self._elsewhere(self.shared, key, expected, demand)) is not None:
            return known
        while key is not None and (pending := self.cache.pending_run(key)) is not None:
            try:
                return await asyncio.shield(pending)
            except asyncio.CancelledError:
                if not pending.cancelled():
                    raise  # this request was given up, not the one whose run it waits for
            except (DeadlineError, OverloadedError):
                pass  # the other one was refused for its own deadline or place, which are not this one's
        job = ScoringJob(feeds, rows, demand, asyncio.get_running_loop().create_future())
        late: list[ScoringJob] = []
        with self._lock:
            self._admit(rows, demand)
            self.queue.put(job)
            if not self._busy:
                self._wake(late)
        _too_late(late)
        if key is not None:
            self._register_run(key, job, expected)
        outputs = await job.future
        if self.observer is not None:
            self.observer.record_run(job.waited)
            self.observer.record_stage(RUN, job.since + job.waited, job.took)
        return outputs

    def _register_run(self, key: bytes, job: ScoringJob, seconds: float) -> None:
        """Register a queued run with the caches."""
        self.cache.add_pending_run(key, job.future)
        if self.shared is not None:
            job.future.add_done_callback(_share_result(self.shared, key, seconds))

    async def _elsewhere(
        self, shared: SharedAnswers, key: bytes | None, seconds: float, demand: Demand
    ) -> list[Array] | None:
        """Outputs from the shared cache, where a lookup pays and the deadline allows it."""
        if key is None or self.cache.pending_run(key) is not None:
            return None
        if demand.deadline is not None and time.perf_counter() + shared.budget + seconds > demand.deadline:
            return None
        lookup = shared.lookup(key, seconds)
        known = None if lookup is None else await asyncio.shield(lookup)
        if known is not None and self.observer is not None:
            self.observer.record_hit()
        return known

    def _admit(self, rows: int, demand: Demand) -> None:
        wait = self.wait()
        took = wait + self.cost.estimate(rows)
        if demand.deadline is not None and time.perf_counter() + took > demand.deadline:
            self.refused += 1
            raise DeadlineError(f"the answer would take {took * 1000:.0f} ms, longer than the request's timeout")
        while wait > self._bounds.queue:
            victim = self.queue.evict(demand, rows)
            self.refused += 1
            if victim is None:
                raise OverloadedError("the model has more to do than it can do in time", retry_after=wait)
            if not victim.future.done():
                victim.future.set_exception(
                    OverloadedError("a request that goes before took its place", retry_after=wait)
                )
            wait = self.wait()

    def wait(self) -> float:
        """Seconds until all queued jobs are done."""
        ahead = max(0.0, self._busy_until - time.perf_counter()) if self._busy else 0.0
        if not self.queue.jobs:
            return ahead
        runs = max(1, -(-self.queue.rows // self._most_rows())) if self.pays else self.queue.jobs
        return ahead + runs * self.cost.fixed + self.queue.rows * self.cost.each

    def _most_rows(self) -> int:
        return min(self._bounds.batch_rows, self.cost.rows_within(self._bounds.batch))

    # --- runs

    def _wake(self, late: list[ScoringJob]) -> None:
        """Start the idle engine on queued jobs; with the lock held."""
        batch = self._next(late)
        if not batch:
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, name="engine", daemon=True)
            self._thread.start()
        self._inbox.put(batch)

    def _work(self) -> None:
        """The engine's thread. It takes from the line itself: an engine that waits for the event loop stands still."""
        while (batch := self._inbox.get()) is not None:
            while batch:
                started = time.perf_counter()
                results = self._scored(batch)
                seconds = time.perf_counter() - started
                _on_loop_of(batch[0], self._finish, batch, results, seconds)
                late: list[ScoringJob] = []
                with self._lock:
                    batch = self._next(late)
                if late:
                    _on_loop_of(late[0], _too_late, late)

    def _next(self, late: list[ScoringJob]) -> list[ScoringJob]:
        """The jobs of the next run, none where nothing waits; with the lock held."""
        batch = self._gather(late)
        self._busy = bool(batch)
        if not batch:
            self._rest()
            return batch
        now = time.perf_counter()
        for job in batch:
            job.waited = now - job.since
            self.waited.observe(job.waited)
        self._busy_until = now + self.cost.estimate(sum(job.rows for job in batch))
        return batch

    def _gather(self, late: list[ScoringJob]) -> list[ScoringJob]:
        """The next jobs to score together; those past their time are put into `late`."""
        batch: list[ScoringJob] = []
        rows, most = 0, self._most_rows()

        def fits(job: ScoringJob) -> bool:
            return not batch or (self.pays and job.signature == batch[0].signature and rows + job.rows <= most)

        while (job := self.queue.take(fits)) is not None:
            if job.future.done():
                continue
            if (
                job.demand.deadline is not None
                and time.perf_counter() + self.cost.estimate(job.rows) > job.demand.deadline
            ):
                late.append(job)
                continue
            batch.append(job)
            rows += job.rows
        return batch

    def _scored(self, batch: Sequence[ScoringJob]) -> list[list[Array] | CumulantError]:
        """Outputs or error of each job. A batch that fails is scored job by job, to isolate the faulty one."""
        try:
            if len(batch) == 1:
                return [self._engine.run(batch[0].feeds, self._outputs)]
            together = {name: np.concatenate([job.feeds[name] for job in batch]) for name in batch[0].feeds}
            return _split(self._engine.run(together, self._outputs), [job.rows for job in batch])
        except (CumulantError, MemoryError) as error:
            if len(batch) > 1:
                return [self._scored([job])[0] for job in batch]
            return [error if isinstance(error, CumulantError) else OutOfMemoryError(f"too little memory: {error}")]
        except Exception as error:  # noqa: BLE001 - the thread's edge: the engine's thread must outlive any fault
            return [CumulantError(f"the engine failed: {error}")] * len(batch)

    def _finish(
        self, batch: Sequence[ScoringJob], results: Sequence[list[Array] | CumulantError], seconds: float
    ) -> None:
        rows = sum(job.rows for job in batch)
        self.cost.learn(rows, seconds)
        self.ran.observe(seconds)
        self.gathered.observe(rows)
        for job, result in zip(batch, results, strict=True):
            job.took = seconds
            if job.future.done():
                continue
            if isinstance(result, CumulantError):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def close(self) -> None:
        """Finish queued jobs, then end the thread. A later request is still answered, by a new thread."""
        with self._lock:
            self._closed = True
            self._rest()

    def _rest(self) -> None:
        """End the thread of a closed runner that has nothing to do; with the lock held."""
        if self._closed and not self._busy and self._thread is not None:
            self._inbox.put(None)
            self._thread = None


def _on_loop_of(job: ScoringJob, call: Callable[..., None], *arguments: object) -> None:
    """Call on the event loop of the job's future; without effect where the loop is closed."""
    with contextlib.suppress(RuntimeError):
        job.future.get_loop().call_soon_threadsafe(call, *arguments)


def _share_result(shared: SharedAnswers, key: bytes, seconds: float) -> Callable[[asyncio.Future[list[Array]]], None]:
    def share(future: asyncio.Future[list[Array]]) -> None:
        if not future.cancelled() and future.exception() is None:
            shared.store(key, future.result(), seconds)

    return share


def _too_late(jobs: Sequence[ScoringJob]) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(DeadlineError("the request's timeout passed while it waited"))


def _split(outputs: Sequence[Array], sizes: Sequence[int]) -> list[list[Array] | CumulantError]:
    ends = np.cumsum(sizes).tolist()
    return [[array[end - size : end] for array in outputs] for size, end in zip(sizes, ends, strict=True)]

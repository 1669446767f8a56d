"""When what is scored: at once, gathered, in turns, refused; and what is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import DeadlineError, OutOfMemoryError, OverloadedError, RequestError
from cumulant.serving.cache import answer_cache
from cumulant.serving.cache.answer_cache import AnswerCache, Caching
from cumulant.serving.scheduling import runner as runner_module
from cumulant.serving.scheduling.cost import RunCost
from cumulant.serving.scheduling.job_queue import Demand, JobQueue, ScoringJob
from cumulant.serving.scheduling.runner import Runner, Scheduling

OFF = Caching(mode="off")
#: nothing stays on the event loop, so that what waits can be looked at
QUEUED = Scheduling(inline=0.0, queue=10.0)


class Doubling:
    """An engine that doubles its input, when it is let; it refuses NaN."""

    def __init__(self, *, held=False):
        self.runs: list[list[float]] = []
        self.gate = threading.Event()
        if not held:
            self.gate.set()

    def run(self, feeds, outputs=()):
        assert self.gate.wait(60)
        (array,) = feeds.values()
        self.runs.append(array[:, 0].tolist())
        if np.isnan(array).any():
            raise RequestError("NaN")
        return [array * 2]


def feeds(*values):
    return {"x": np.array([[float(value)] for value in values], dtype=np.float32)}


def runner(engine, *, exact=True, scheduling=QUEUED, caching=OFF):
    made = Runner(engine, ["y"], exact=exact, scheduling=scheduling, caching=caching)
    made.cost.learn(1, 0.001)
    return made


async def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_an_idle_and_cheap_engine_runs_at_once():
    engine = Doubling()
    made = runner(engine, scheduling=Scheduling(inline=0.01))
    (found,) = made.run_now(feeds(1, 2), 2)
    assert found.tolist() == [[2.0], [4.0]]
    made.cost.learn(1, 100.0)
    for _ in range(20):
        made.cost.learn(1, 100.0)
    assert made.run_now(feeds(1), 1) is None


@pytest.mark.parametrize("exact", [True, False])
def test_what_comes_while_the_engine_is_busy_is_gathered_where_that_changes_nothing(exact):
    async def act():
        engine = Doubling(held=True)
        made = runner(engine, exact=exact)
        tasks = [asyncio.ensure_future(made.run_later(feeds(k, k + 0.5), 2)) for k in range(5)]
        await until(lambda: made.queue.rows == 8)
        engine.gate.set()
        found = [(await task)[0].tolist() for task in tasks]
        assert found == [[[2.0 * k], [2.0 * k + 1]] for k in range(5)]
        assert [len(run) for run in engine.runs] == ([2, 8] if exact else [2] * 5)
        made.close()

    asyncio.run(act())


def test_rows_of_other_shapes_are_not_put_together():
    async def act():
        engine = Doubling(held=True)
        made = runner(engine)
        wide = {"x": np.ones((1, 3), np.float32)}
        tasks = [asyncio.ensure_future(made.run_later(one, 1)) for one in (feeds(1), feeds(2), wide, feeds(3))]
        await until(lambda: made.queue.rows == 3)
        engine.gate.set()
        assert [(await task)[0].shape for task in tasks] == [(1, 1), (1, 1), (1, 3), (1, 1)]
        made.close()

    asyncio.run(act())


def test_a_refused_row_does_not_spoil_its_batch():
    async def act():
        engine = Doubling(held=True)
        made = runner(engine)
        tasks = [asyncio.ensure_future(made.run_later(feeds(k), 1)) for k in (0, 1, float("nan"), 3)]
        await until(lambda: made.queue.rows == 3)
        engine.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one[0].tolist() for one in (found[0], found[1], found[3])] == [[[0.0]], [[2.0]], [[6.0]]]
        assert isinstance(found[2], RequestError)
        made.close()

    asyncio.run(act())


def test_an_engine_that_fails_is_told_and_the_next_run_goes_on():
    class Broken(Doubling):
        def run(self, feeds, outputs=()):
            if not self.runs:
                self.runs.append([])
                raise MemoryError("no room")
            return super().run(feeds, outputs)

    async def act():
        made = runner(Broken())
        with pytest.raises(OutOfMemoryError, match="no room"):
            await made.run_later(feeds(1), 1)
        assert (await made.run_later(feeds(1), 1))[0].tolist() == [[2.0]]
        made.close()

    asyncio.run(act())


def test_a_cancelled_request_never_harms_its_batch():
    async def act():
        engine = Doubling(held=True)
        made = runner(engine)
        tasks = [asyncio.ensure_future(made.run_later(feeds(k), 1)) for k in range(4)]
        await until(lambda: made.queue.rows == 3)
        tasks[0].cancel()  # in the engine
        tasks[2].cancel()  # in the line
        engine.gate.set()
        assert (await tasks[1])[0].tolist() == [[2.0]]
        assert (await tasks[3])[0].tolist() == [[6.0]]
        assert engine.runs == [[0.0], [1.0, 3.0]]
        made.close()

    asyncio.run(act())


def test_too_much_in_waiting_is_refused_and_less_urgent_work_gives_way():
    async def act():
        engine = Doubling(held=True)
        made = runner(engine, scheduling=Scheduling(inline=0.0, queue=0.0035, batch=10.0))
        tasks = [asyncio.ensure_future(made.run_later(feeds(k), 1, Demand(priority=5, client="a"))) for k in range(4)]
        await until(lambda: made.queue.rows == 3)
        await asyncio.sleep(0.002)  # what runs is over its time by now
        tasks += [asyncio.ensure_future(made.run_later(feeds(4), 1, Demand(priority=5, client="a")))]
        await until(lambda: made.queue.rows == 4)
        with pytest.raises(OverloadedError) as refused:
            await made.run_later(feeds(9), 1, Demand(priority=5, client="a"))
        assert 0 < refused.value.retry_after < 1
        urgent = asyncio.ensure_future(made.run_later(feeds(9), 1, Demand(priority=1, client="a")))
        with pytest.raises(OverloadedError):
            await tasks[4]
        engine.gate.set()
        assert (await urgent)[0].tolist() == [[18.0]]
        assert (await tasks[3])[0].tolist() == [[6.0]]
        made.close()

    asyncio.run(act())


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_one_that_passed_is_not_scored(monkeypatch):
    async def act():
        engine = Doubling(held=True)
        made = runner(engine)
        first = asyncio.ensure_future(made.run_later(feeds(0), 1))
        await until(lambda: made._busy)
        with pytest.raises(DeadlineError, match="longer than"):
            await made.run_later(feeds(1), 1, Demand(deadline=time.perf_counter() + 0.0005))
        late = asyncio.ensure_future(made.run_later(feeds(2), 1, Demand(deadline=time.perf_counter() + 60)))
        await until(lambda: made.queue.rows == 1)
        monkeypatch.setattr(runner_module, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + 61))
        engine.gate.set()
        await first
        with pytest.raises(DeadlineError, match="while it waited"):
            await late
        assert engine.runs == [[0.0]]
        made.close()

    asyncio.run(act())


def test_closing_finishes_what_waits_and_ends_the_thread():
    async def act():
        engine = Doubling(held=True)
        made = runner(engine)
        tasks = [asyncio.ensure_future(made.run_later(feeds(k), 1)) for k in range(3)]
        await until(lambda: made.queue.rows == 2)
        thread = made._thread
        made.close()
        engine.gate.set()
        assert [(await task)[0].tolist() for task in tasks] == [[[0.0]], [[2.0]], [[4.0]]]
        await until(lambda: not thread.is_alive())
        assert (await made.run_later(feeds(5), 1))[0].tolist() == [[10.0]]  # it had this model in hand already

    asyncio.run(act())


def test_measuring_finds_out_that_neighbours_change_answers():
    class Neighbourly(Doubling):
        def run(self, feeds, outputs=()):
            (array,) = feeds.values()
            return [array * (1 + array.mean())]

    made = Runner(Neighbourly(), ["y"], exact=True)
    made.measure(lambda rows: feeds(*range(rows)))
    assert not made.exact
    made = Runner(Doubling(), ["y"], exact=True)
    made.measure(lambda rows: feeds(*range(rows)))
    assert made.exact
    assert made.cost.estimate(1) > 0
    refusing = Runner(Doubling(), ["y"], exact=True)
    refusing.measure(lambda rows: feeds(*[float("nan")] * rows))
    too_large = np.broadcast_to(np.float32(1), (2**45, 1))
    lacking = runner(Doubling())
    lacking.measure(lambda rows: {"x": np.concatenate([too_large, too_large])})
    assert (lacking.exact, lacking.pays) == (False, False), "rows that cannot be allocated stop no start"

    class First(Doubling):
        def run(self, feeds, outputs=()):
            return [feeds["x"][:1] * 2]

    jobs = [ScoringJob({"x": too_large}, 1, Demand(), None) for _ in range(2)]
    assert runner(First())._scored(jobs) == [[np.float32(2)], [np.float32(2)]], "one by one where memory ends together"
    assert not refusing.exact


# --- the line


def job(client, priority, rows=1):
    return ScoringJob(feeds(*range(rows)), rows, Demand(priority=priority, client=client), None)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(1, 3)), max_size=30))
def test_jobs_leave_by_priority_and_by_turns_of_the_clients(wanted):
    line, waiting = JobQueue(), {}
    for client, priority, rows in wanted:
        one = job(client, priority, rows)
        line.put(one)
        waiting.setdefault(priority, {}).setdefault(client, deque()).append(one)
    assert line.rows == sum(rows for _, _, rows in wanted)
    for priority in sorted(waiting):
        clients = deque(waiting[priority])
        while clients:
            client = clients.popleft()
            assert line.take(lambda _: True) is waiting[priority][client].popleft()
            if waiting[priority][client]:
                clients.append(client)
    assert (line.rows, len(line), line.take(lambda _: True)) == (0, 0, None)


def test_a_greedy_client_gives_way_to_one_below_its_share():
    line = JobQueue()
    for _ in range(9):
        line.put(job("greedy", 5))
    line.put(job("modest", 5))
    assert line.evict(Demand(priority=5, client="greedy"), 1) is None
    victim = line.evict(Demand(priority=5, client="new"), 1)
    assert victim.demand.client == "greedy"
    assert line.waiting_rows("greedy") == 8
    assert line.evict(Demand(priority=9, client="new"), 1) is None  # it is itself the least urgent


# --- the cost


@settings(deadline=None, max_examples=50)
@given(
    fixed=st.floats(0, 1e-2), each=st.floats(1e-6, 1e-3), sizes=st.lists(st.integers(1, 200), min_size=40, max_size=80)
)
def test_the_cost_is_learned(fixed, each, sizes):
    cost = RunCost()
    for rows in (1, 64, *sizes):
        cost.learn(rows, fixed + rows * each)
    for _ in range(5):
        for rows in (1, 64, *sizes):
            cost.learn(rows, fixed + rows * each)
    for rows in (1, 10, 100):
        assert cost.estimate(rows) == pytest.approx(fixed + rows * each, rel=0.05, abs=1e-5)
        assert cost.estimate(cost.rows_within(cost.estimate(rows))) == pytest.approx(
            cost.estimate(rows), rel=0.05, abs=1e-5
        )


def test_one_slow_run_says_little_and_a_change_is_followed():
    cost = RunCost()
    for _ in range(200):
        cost.learn(1, 1e-5)
    cost.learn(1, 1.0)
    assert cost.estimate(1) < 2e-5
    for _ in range(600):
        cost.learn(1, 1e-3)
    assert cost.estimate(1) == pytest.approx(1e-3, rel=0.2)


def test_runs_of_nearly_one_size_on_a_busy_machine_never_make_rows_free():
    random = np.random.default_rng(4)
    cost = RunCost()
    for rows in (1, 8, 32, *(int(size) for size in random.integers(7, 10, 4000))):
        stall = 3 if random.random() < 0.05 else 1
        cost.learn(rows, (4e-4 + 1e-3 * rows) * random.lognormal(0, 0.35) * stall)
        assert cost.rows_within(0.01) < 64


# --- the cache


def test_the_cache_is_bounded_forgets_the_longest_unused_and_what_is_old(monkeypatch):
    now = 0.0
    monkeypatch.setattr(answer_cache, "time", SimpleNamespace(monotonic=lambda: now))
    cache = AnswerCache(Caching(mode="on", limit=2000, ttl=0.05))
    keys = [cache.key(feeds(k), 1.0) for k in range(10)]
    assert len(set(keys)) == 10
    for k, key in enumerate(keys):
        assert cache.get(key) is None
        cache.put(key, [np.full((1, 1), k)])
        cache.get(keys[0])
    assert cache._bytes <= 2000
    assert cache.get(keys[0])[0].item() == 0
    assert cache.get(keys[1]) is None
    assert cache.get(keys[9])[0].item() == 9
    with pytest.raises(ValueError, match="read-only"):
        cache.get(keys[9])[0][0] = 5
    cache.put(keys[1], [np.zeros(5000)])
    assert cache.get(keys[1]) is None
    now = 0.06
    assert cache.get(keys[9]) is None


def test_equal_bytes_of_another_shape_are_another_input():
    cache = AnswerCache(Caching(mode="on"))
    assert cache.key({"x": np.zeros((2, 3))}, 1.0) != cache.key({"x": np.zeros((3, 2))}, 1.0)
    assert cache.key({"x": np.array(["a"], dtype=object)}, 1.0) is None


def test_the_cache_goes_off_where_it_does_not_pay_and_stays_where_it_does():
    cheap = AnswerCache(Caching())
    for k in range(3000):
        key = cheap.key(feeds(k), 1e-5)
        if key is not None and cheap.get(key) is None:
            cheap.put(key, [np.zeros(1)])
    assert cheap.key(feeds(1), 1e-5) is None
    assert (cheap.hits, cheap._bytes) == (0, 0)
    dear = AnswerCache(Caching())
    for k in range(3000):
        key = dear.key(feeds(k % 100), 1e-3)
        if dear.get(key) is None:
            dear.put(key, [np.zeros(1)])
    assert dear.hits == 2900


def test_equal_requests_share_one_run_and_the_leader_may_leave():
    async def act():
        engine = Doubling(held=True)
        made = runner(engine, caching=Caching(mode="on"))
        first = asyncio.ensure_future(made.run_later(feeds(7), 1))
        await until(lambda: made._busy)
        leader = asyncio.ensure_future(made.run_later(feeds(8), 1))
        await until(lambda: made.queue.rows == 1)
        others = [asyncio.ensure_future(made.run_later(feeds(8), 1)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert made.queue.rows == 1
        leader.cancel()
        await asyncio.sleep(0.01)
        engine.gate.set()
        for task in others:
            assert (await task)[0].tolist() == [[16.0]]
        await first
        assert engine.runs == [[7.0], [8.0]]
        assert made.run_now(feeds(8), 1)[0].tolist() == [[16.0]]
        made.close()

    asyncio.run(act())

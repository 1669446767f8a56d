"""A runner under any order of requests, cancellations and closing: each gets its own answer or its own refusal."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serving_scheduling import Doubling, feeds, runner, until

from cumulant.core.errors import DeadlineError, OverloadedError, RequestError
from cumulant.serving.cache.answer_cache import Caching
from cumulant.serving.scheduling import runner as runner_module
from cumulant.serving.scheduling.job_queue import Demand
from cumulant.serving.scheduling.runner import Scheduling

KEPT = Caching(mode="on")


def test_who_waits_for_anothers_run_does_not_get_its_deadline_or_its_place(monkeypatch):
    async def act(refuse):
        engine = Doubling(held=True)
        made = runner(engine, caching=KEPT)
        first = asyncio.ensure_future(made.run_later(feeds(1), 1))
        owner = asyncio.ensure_future(made.run_later(feeds(2), 1, Demand(time.perf_counter() + 60, 5)))
        await until(lambda: made.queue.jobs == 1)
        follower = asyncio.ensure_future(made.run_later(feeds(2), 1))
        await asyncio.sleep(0.1)
        if refuse:
            victim = made.queue.evict(Demand(None, 1), 1)
            victim.future.set_exception(OverloadedError("a request that goes before took its place"))
        else:
            monkeypatch.setattr(runner_module, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + 61))
        engine.gate.set()
        found = await asyncio.wait_for(follower, 60)
        assert await first is not None
        with pytest.raises((DeadlineError, OverloadedError)):
            await owner
        return found[0].tolist()

    assert asyncio.run(act(refuse=False)) == [[4.0]]
    monkeypatch.undo()
    assert asyncio.run(act(refuse=True)) == [[4.0]]


@pytest.mark.parametrize("exact", [True, False])
def test_requests_without_rows_wait_in_a_bounded_line_too(exact):
    async def act():
        engine = Doubling(held=True)
        made = runner(engine, exact=exact, scheduling=Scheduling(inline=0.0, queue=0.05))
        made.cost.fixed, made.cost.each = 0.001, 0.0
        empty = {"x": np.empty((0, 1), dtype=np.float32)}
        made.pays = exact and made.pays
        tasks = [asyncio.ensure_future(made.run_later(empty, 0)) for _ in range(500)]
        await asyncio.sleep(0.05)
        waiting = made.queue.jobs
        engine.gate.set()
        await asyncio.wait(tasks, timeout=60)
        return waiting, sum(isinstance(task.exception(), OverloadedError) for task in tasks)

    waiting, refused = asyncio.run(act())
    if exact:
        assert waiting + refused <= 500  # all of them are one run
    else:
        assert waiting < 100
        assert refused > 300


ACTIONS = st.one_of(
    st.tuples(
        st.just("ask"),
        st.lists(st.sampled_from([1.0, 2.0, 3.0, float("nan")]), min_size=1, max_size=4),
        st.sampled_from([None, -1.0, 0.0005, 1e6]),
        st.integers(0, 3),
        st.sampled_from(["", "a", "b"]),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("pause"), st.sampled_from([0.0, 0.001])),
    st.tuples(st.just("close")),
)


@settings(max_examples=150, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=30),
    exact=st.booleans(),
    caching=st.sampled_from([Caching(mode="off"), KEPT]),
    queue=st.sampled_from([0.002, 1e6]),
)
def test_every_request_gets_its_own_answer_or_its_own_refusal(actions, exact, caching, queue):
    async def act():
        engine = Doubling()
        made = runner(engine, exact=exact, caching=caching, scheduling=Scheduling(inline=0.0, queue=queue))
        asked, cancelled = [], set()
        for action in actions:
            match action:
                case ("ask", values, seconds, priority, client):
                    deadline = None if seconds is None else time.perf_counter() + seconds
                    work = made.run_later(feeds(*values), len(values), Demand(deadline, priority, client))
                    asked.append((asyncio.ensure_future(work), values, seconds))
                    await asyncio.sleep(0)
                case ("cancel", place) if place < len(asked):
                    asked[place][0].cancel()
                    cancelled.add(place)
                case ("pause", seconds):
                    await asyncio.sleep(seconds)
                case ("close",):
                    made.close()
        if asked:
            _, late = await asyncio.wait([task for task, _, _ in asked], timeout=60)
            assert not late, "a request is never answered"
        await until(lambda: not made._busy)
        assert (made.queue.jobs, made.queue.rows, len(made.queue), made.queue._waiting_rows) == (0, 0, 0, {})
        assert not made.cache._pending_runs
        for place, (task, values, seconds) in enumerate(asked):
            judge(task, values, seconds, queue, gone=place in cancelled)
        made.close()
        thread = made._thread
        assert thread is None or not thread.is_alive()

    asyncio.run(act())


def judge(task, values, seconds, queue, *, gone):
    if task.cancelled():
        assert gone
        return
    match task.exception():
        case None:
            assert not np.isnan(values).any()
            assert task.result()[0][:, 0].tolist() == [2 * value for value in values]
        case RequestError() as error if not isinstance(error, (DeadlineError, OverloadedError)):
            assert np.isnan(values).any()
        case DeadlineError():
            assert seconds is not None
            assert seconds < 1
        case OverloadedError():
            assert queue < 1
        case other:
            raise other

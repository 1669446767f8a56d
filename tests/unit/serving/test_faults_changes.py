"""Changes of what all workers serve, where some workers cannot follow or two changes meet."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import msgspec
import pytest
from serving_graphs import scale

from cumulant.core.errors import EngineUnavailableError
from cumulant.serving.content_pins import copy_content, pin
from cumulant.serving.settings import Settings
from cumulant.serving.workers.channel import GoneError, describe_error, restore_error
from cumulant.serving.workers.supervisor import WorkerSupervisor, _Member

STORE = EngineUnavailableError("the store does not answer")


class Worker:
    """A worker's channel, which answers each verb as it is told."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    async def call(self, verb, arguments):
        self.asked.append(verb)
        answer = self.answers.get(verb)
        if isinstance(answer, Exception):
            raise answer
        return answer


def over(workers, pins=()):
    """A supervisor of these workers, from within an event loop."""
    found = WorkerSupervisor(Settings(folders=(), workers=len(workers)), pins)
    for place, worker in enumerate(workers):
        forever = asyncio.get_running_loop().create_future()
        process = SimpleNamespace(pid=place)
        found._members[place] = _Member(process, worker, forever, forever, time.monotonic())
    return found


def change(pins, key="k"):
    return {"name": "graph", "key": key, "pins": msgspec.to_builtins(pins)}


@pytest.fixture
def kept(tmp_path):
    """Two versions' content, as a server keeps it."""
    (tmp_path / "kept").mkdir()
    return [copy_content(pin(scale(tmp_path / f"{k}", float(k))), tmp_path / "kept") for k in (2, 3)]


@pytest.mark.parametrize("verb", ["commit", "unload"])
def test_a_worker_that_cannot_follow_a_change_ends_rather_than_serving_what_was(kept, verb):
    async def story():
        good, bad, dead = Worker(), Worker(**{verb: STORE}), Worker(**{verb: GoneError("it has ended")})
        supervisor = over([good, bad, dead], kept[:1])
        await supervisor._everywhere(verb, change(kept[1:]))
        assert (good.asked, bad.asked, dead.asked) == ([verb], [verb, "end"], [verb])
        assert supervisor._pins == ({"graph": (kept[1],)} if verb == "commit" else {})

    asyncio.run(story())


def test_what_no_worker_can_do_is_not_done(kept):
    async def story():
        workers = [Worker(commit=STORE), Worker(commit=STORE)]
        supervisor = over(workers, kept[:1])
        with pytest.raises(EngineUnavailableError, match="store does not answer"):
            await supervisor._everywhere("commit", change(kept[1:]))
        assert [worker.asked for worker in workers] == [["commit"], ["commit"]]
        assert supervisor._pins == {"graph": (kept[0],)}
        assert kept[0].place.is_dir()

    asyncio.run(story())


def test_a_load_that_a_living_worker_cannot_follow_is_refused(kept):
    async def story():
        with pytest.raises(EngineUnavailableError, match="store does not answer"):
            await over([Worker(), Worker(prepare=STORE)])._everywhere("prepare", change(kept))
        assert await over([Worker(prepare=["1"]), Worker(prepare=GoneError("it has ended"))])._everywhere(
            "prepare", change(kept)
        ) == [["1"]]

    asyncio.run(story())


def test_content_of_a_load_under_way_outlives_an_unload_and_goes_when_the_load_is_given_up(kept):
    async def story():
        supervisor = over([Worker()], kept)
        await supervisor._everywhere("prepare", change(kept[1:]))
        await supervisor._everywhere("unload", {"name": "graph"})
        assert [one.place.is_dir() for one in kept] == [False, True]
        await supervisor._everywhere("discard", change(kept[1:]))
        assert not kept[1].place.is_dir()

    asyncio.run(story())


def test_content_of_a_load_that_was_made_stays(kept):
    async def story():
        supervisor = over([Worker()], kept[:1])
        for verb in ("prepare", "commit"):
            await supervisor._everywhere(verb, change(kept[1:]))
        assert [one.place.is_dir() for one in kept] == [False, True]
        await supervisor._everywhere("unload", {"name": "graph"})
        assert not kept[1].place.is_dir()

    asyncio.run(story())


def test_an_error_of_the_channel_is_told_as_one_that_every_process_knows():
    assert type(restore_error(describe_error(GoneError("x")))) is EngineUnavailableError

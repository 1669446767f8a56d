"""Releases under a steady sticky load, by real processes, while everything breaks in every stage."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from contextlib import contextmanager

import pytest
from e2e_stack import STEPS, stack, until
from e2e_support import run

from cumulant.core.errors import CumulantError
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.release.actions import abort
from cumulant.release.spec import CeilingSpec

pytestmark = [pytest.mark.live, pytest.mark.slow]

#: no hard failure ends a release: each of its processes is killed again and again
LENIENT = CeilingSpec(errors="100%", not_ready="1h", restarts=1000)
#: where the controller is killed on the way to the next step: before a file is put in place
DEATHS = ("state.json", "clusters.json", "routes.json", "state.json", "desired_state.json")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A stack, reused by all tests."""
    with stack(tmp_path_factory.mktemp("faults") / "stack") as found:
        yield found


class Watched:
    """The routes of a model that were in force, each once, as often as one can look."""

    def __init__(self, running):
        self._running, self._done = running, threading.Event()
        self.routes = []

    @contextmanager
    def looking(self):
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()

    def _look(self):
        while not self._done.wait(0.02):
            try:
                routes = self._running.traffic.in_force("graph")
            except CumulantError:  # the gateway is being killed
                continue
            if not self.routes or self.routes[-1] != routes:
                self.routes.append(routes)


def check_routes(watched, over, steps):
    """Every step's weights were in force once, in their order, and nothing else was."""
    assert [one.revision for one in watched.routes] == sorted({one.revision for one in watched.routes})
    begun = over.revision - len(steps)
    seen = [one for one in watched.routes if one.revision >= begun]
    assert [(one.weight, one.mirror) for one in seen[:-1]] == [(step.weight, step.mirror) for step in steps]
    assert (seen[-1].candidate, seen[-1].champion.version) == (None, over.candidate.version)


def check_keys(running, over):
    """A key is one arm's within a revision, and goes from the champion to the candidate only."""
    arms, first = defaultdict(set), {}
    told = [one for one in running.exchanges() if over.revision - len(over.steps) <= one.revision < over.revision]
    for one in told:
        arms[one.revision, one.key].add(one.assigned)
        if one.assigned == CANDIDATE:
            first[one.key] = min(first.get(one.key, one.revision), one.revision)
    assert len(told) > 100
    assert all(len(found) == 1 for found in arms.values())
    assert [key for key in arms if key[1] in first and key[0] > first[key[1]] and arms[key] != {CANDIDATE}] == []
    assert len(first) > 50


def unexplained(over, seen, faults):
    """Failed requests that nothing explains that was broken just then."""
    return [one for one in seen if one.failed and not any(explains(fault, one, over) for fault in faults)]


def explains(fault, one, over):
    """The gateway's callers wait for it. A server takes with it what it was working at; the other arm does the rest."""
    if one.ended < fault.begun or one.begun > fault.ended:
        return False
    arm = {f"server-{over.champion.version}": CHAMPION, f"server-{over.candidate.version}": CANDIDATE}.get(fault.what)
    return fault.what == "gateway" or one.arm == arm


def test_a_candidate_that_hangs_comes_back(running):
    with running.load(60) as load:
        running.begin(running.equal(), steps=STEPS[1:])
        running.to("canary 50%")
        with running.stopped(running.servers()[1]):
            until(lambda: running.release.over)
            until(lambda: running.traffic.in_force("graph").weight == 0)
            count = load.answered()
            until(lambda: load.answered() > count + 100)
        over = running.over()
    assert over.status == "rolled_back"
    assert over.reason.startswith("the candidate")
    assert {one.arm for one in load.seen if one.failed} <= {CANDIDATE}


def test_a_candidate_of_another_shape_answers_nobody(running):
    with running.load(60) as load:
        running.begin("3")
        over = running.over()
    assert over.status == "rolled_back"
    assert "another shape" in over.reason
    assert [one for one in load.seen if one.failed] == []
    assert {one.version for one in load.seen} == {over.champion.version}


def test_a_champion_that_degrades_is_not_the_candidate_s_fault(running):
    with running.load(60) as load:
        running.begin(running.equal(), steps=STEPS[1:])
        running.to("canary 50%")
        with running.stopped(running.servers()[0]):
            until(lambda: not all(one.ready for one in running.traffic.health("graph")))
            count = load.answered()
            until(lambda: load.answered() > count + 100)
        until(lambda: all(one.ready for one in running.traffic.health("graph")))
        assert running.release.step.label == "canary 50%"
        running.onward()
        running.onward()
        over = running.over()
    assert over.status == "promoted", over.reason
    assert unexplained(over, load.seen, running.faults) == []


def test_a_full_disk_costs_no_request(running):
    with running.load(60) as load:
        running.begin(running.equal(), steps=STEPS[1:])
        running.to("canary 10%")
        ballast = running.full()
        count = load.answered()
        until(lambda: load.answered() > count + 100)
        assert running.release.step.label == "canary 10%"
        ballast.unlink()
        running.onward()
        running.reached("canary 50%")
        abort(running.project, principal=running.project.principal(), reason="seen enough")
        over = running.over()
    assert over.status == "rolled_back"
    assert [one for one in load.seen if one.failed] == []


def test_each_process_is_killed_in_each_stage_and_nothing_is_lost_or_decided_twice(running):
    steps = STEPS
    with Watched(running).looking() as watched, running.load(60) as load:
        running.begin(running.equal(), steps=steps, ceilings=LENIENT)
        champion, candidate = running.servers()
        for place, (step, file) in enumerate(zip(steps, DEATHS, strict=True)):
            running.reached(step.label)
            running.clock(1 - place % 2)  # an hour on, and an hour back
            # Of each step the controller is killed on its way to the next; in the first one in its midst, too.
            for names in ((candidate, "controller") if place == 0 else (candidate,), ("gateway",), (champion,)):
                running.kill(*names)
            assert running.release.step == step
            running.onward(dies_at=file)
        over = running.over()
        until(lambda: load.seen[-1].version == over.candidate.version)
    assert over.status == "promoted", over.reason
    assert [one.label for one in over.passed] == [step.label for step in steps]
    assert Counter(running.events(over)) == {"release.started": 1, "release.step_begun": len(steps), "release.ended": 1}
    check_routes(watched, over, steps)
    check_keys(running, over)
    assert unexplained(over, load.seen, running.faults) == []


def test_nothing_is_left(running):
    assert len(running.processes()) > 4
    run(running.folder, "down")
    assert running.processes() == []

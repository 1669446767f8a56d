"""The controller's process, round by round, between small real servers."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import msgspec
import pytest
from release_servers import project, served, serving
from releases import MOMENT, release

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError, OutOfMemoryError, StorageError
from cumulant.core.events import Actor
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Exchange
from cumulant.core.units import to_micros
from cumulant.flows.alerting.alerts import deliver
from cumulant.flows.maintenance.schedule import tick
from cumulant.flows.release import store
from cumulant.flows.release.actions import abort
from cumulant.flows.release.controller.evidence import fetch_output_shape
from cumulant.flows.release.controller.external_servers import ExternalServers
from cumulant.flows.release.controller.heartbeat import Heartbeat
from cumulant.flows.release.controller_process import (
    Controllers,
    LogLines,
    build_controller,
    describe_progress,
    run,
    run_once,
)
from cumulant.flows.release.release_queries import release_looks
from cumulant.flows.release.start.new_release import begin_release
from cumulant.flows.release.start.start import start_release, start_waiting_release
from cumulant.flows.stack.desired_state import change_desired_state, read_desired_state
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.release.decide import end_release, start
from cumulant.testing.clock import ManualClock

ADA = Principal("user:ada")


@pytest.fixture
def clock():
    return ManualClock(MOMENT)


class World:
    """Two servers, a project in memory, and a controller whose seconds pass when a test says so."""

    def __init__(self, late, clock, one, other) -> None:
        self.late, self.clock, self.now, self.said = late, clock, 0.0, []
        self.arms = {CHAMPION: one, CANDIDATE: other}
        outside = ExternalServers(champion=one.url, candidate=other.url)
        start_release(late, principal=ADA, outside=outside, clock=clock)
        self.acting = self.controller()

    def controller(self):
        return build_controller(self.late, self.said.append, clock=self.clock, steady=lambda: self.now)

    def second(self, *, failing=0.0):
        """Twenty requests, and a round of the controller."""
        routes = self.late.gateway().in_force("late")
        weight = routes.weight if routes else 0
        for number in range(20):
            arm = CANDIDATE if number * 5 < weight else CHAMPION
            bad = arm == CANDIDATE and number < failing * 20
            self.late.gateway().put(
                [
                    Exchange(
                        request="r",
                        time=to_micros(self.clock.now()),
                        model="late",
                        assigned=arm,
                        served=arm,
                        status=500 if bad else 200,
                        duration_us=2000,
                        revision=routes.revision if routes else 0,
                    )
                ]
            )
        self.now += 1
        self.clock.move(timedelta(seconds=1))
        self.acting.tick()
        return store.read_required(self.late.journal(), "late")[0]


SHORT = """
release:
  look: 2s
  block: 2s
  metrics: {latency: {required: false}, errors: {margin: 20%}, timeouts: {margin: 20%}}
  stages:
    ab: null
    canary: {weights: [10%, 50%], at_least: 4s, soak: 6s, samples: 20}
"""


@pytest.fixture
def world(tmp_path, clock):
    with serving() as one, serving() as other, project(tmp_path / "late", SHORT, clock=clock) as late:
        yield World(late, clock, one, other)


def test_a_good_candidate_is_promoted_over_killed_controllers(world):
    weights = []
    for number in range(200):
        now = world.second()
        weights.append(now.weight)
        if number % 20 == 19:
            world.acting = world.controller()
            world.now += 6
        if now.over:
            break
    assert now.status == "promoted", now.reason
    assert weights == sorted(weights)
    assert world.late.gateway().in_force("late").champion.version == world.arms[CANDIDATE].url
    assert now.settled == {"notified", "drained"}


def test_looks_are_recorded_with_what_was_decided_on_them_over_killed_controllers(world):
    for number in range(200):
        now = world.second()
        if number % 20 == 19:
            world.acting = world.controller()
            world.now += 6
        if now.over:
            break
    history = release_looks(world.late, now.id, principal=ADA)
    errors = history.metrics["errors"]
    assert history.steps == tuple(step.label for step in now.steps)
    assert [look.seconds for look in errors.looks] == sorted(look.seconds for look in errors.looks)
    assert {look.step for look in errors.looks} <= set(range(len(now.steps)))
    last, board = errors.looks[-1], now.boards["errors"]
    assert (last.harm, last.fine, last.low, last.high) == (board.most_harm, board.fine, board.low, board.high)
    assert (last.acceptable, last.harmful) == (True, False)
    assert last.candidate_samples == board.samples[CANDIDATE]
    assert errors.margin == board.margin


def test_looks_that_cannot_be_read_begin_anew(world):
    now = world.second()
    with world.late.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put(store.LOOKS, f"late/{now.id}", {"of": "another version"})
    assert release_looks(world.late, now.id, principal=ADA) is None
    while not world.second().over:
        pass
    assert release_looks(world.late, now.id, principal=ADA).metrics["errors"].looks


def test_a_candidate_of_another_shape_is_back_within_two_rounds(world):
    for _ in range(3):
        assert world.second().status == "running"
    world.arms[CANDIDATE].outputs = [{"name": "other", "datatype": "FP64"}]
    assert world.second().status == "rolled_back"
    assert world.late.gateway().in_force("late").weight == 0
    assert "another shape" in store.read_required(world.late.journal(), "late")[0].reason


def test_outputs_are_read_with_the_token_that_servers_want():
    said = []
    with serving() as server:
        server.token = "a-token-of-the-test"
        arm = Arm(name=CHAMPION, version="1", endpoints=(server.url,))
        assert fetch_output_shape(arm, "late", said.append) is None
        assert "does not show them to the controller (HTTP 401)" in said.pop()
        assert fetch_output_shape(arm, "late", said.append, token=server.token) == {("prediction", "FP64")}
    assert not said


def test_external_servers_are_not_sent_the_controllers_token(world, monkeypatch):
    for server in world.arms.values():
        server.token = "a-token-of-the-test"
    monkeypatch.setenv("CUMULANT_TOKEN", "a-token-of-the-test")
    world.acting = world.controller()
    world.now += 6  # until the lease of the one before is over
    for _ in range(3):
        assert world.second().status == "running"
    assert any("not compared" in text for text in world.said)


def test_a_candidate_that_fails_is_back_within_seconds(world):
    world.second()
    world.second()
    seconds = 0
    now = world.second(failing=1.0)
    while not now.over and seconds < 60:
        seconds += 1
        now = world.second(failing=1.0)
    assert now.status == "rolled_back"
    assert "failed" in now.reason
    assert seconds <= 12


def test_an_unreachable_journal_stops_progress_and_not_the_process(world, monkeypatch):
    late, said, pauses = world.late, [], []

    def gone():
        raise EngineUnavailableError("the journal does not answer", subject="journal")

    def asked(seconds):
        pauses.append(seconds)
        return len(pauses) > 6

    acting, journal = Controllers(late, said.append, settle=1), late.journal
    late.journal = gone
    run(late, acting, asked, LogLines(said.append))
    assert pauses[:6] == [1, 2, 4, 8, 16, 30]
    assert said == ["waits: the journal does not answer\n"], "said once"
    late.journal = journal
    run(late, acting, lambda seconds, left=[3]: left.__setitem__(0, left[0] - 1) or left[0] < 0, LogLines(said.append))
    assert "on its way in canary 10%" in said[-1]


def test_for_a_scheduler_each_release_is_looked_at_once(world):
    world.second()  # it begins
    waited = []

    class Acting:
        def tick(self):
            return [world.second()]

    before = store.read_required(world.late.journal(), "late")[0].seconds
    found = run_once(world.late, Acting(), waited.append, lambda _: None)
    assert [describe_progress(one) for one in found] == ["canary 10%: 60 requests"]
    assert store.read_required(world.late.journal(), "late")[0].seconds > before
    assert waited == [1, 1, 1], "a look is every 2 s, and the first second of a process has seen nothing"


def test_for_a_scheduler_nothing_is_done_where_another_controller_acts(world):
    class Acting:
        def tick(self):
            return []

    assert run_once(world.late, Acting(), lambda _: False, lambda _: None) == []


def test_tick_looks_at_a_release_in_a_process_of_its_own(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: late}\n")
    with load(tmp_path) as late, late.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, end_release(start(release()), "rolled_back", "it was slow", at=MOMENT), expect=0)
    with load(tmp_path) as late:
        found, error = tick(late, principal=ADA)
    assert error is None
    assert found[0].sentence == (
        "no release is under way; the last one: version 2 of late was rolled back in shadow: it was slow"
    )


def test_a_fault_of_the_controller_does_not_end_it(world):
    said, rounds, fresh = [], [], []

    class Broken:
        heartbeat = Heartbeat(steady=lambda: 100.0 * len(rounds))

        def tick(self):
            fresh.append(self.heartbeat.is_fresh())
            raise ZeroDivisionError("surprise")

    run(world.late, Broken(), lambda seconds: rounds.append(1) or len(rounds) > 3, LogLines(said.append))
    assert fresh == [True] * 3, "each round is a step of the loop"
    assert "ZeroDivisionError: surprise" in said[0]


def test_each_model_and_each_phase_of_a_start_is_a_step_of_the_loop(world, monkeypatch):
    now, fresh, late = [0.0], [], world.late
    acting = Controllers(late, world.said.append, settle=1)
    acting.heartbeat = Heartbeat(steady=lambda: now[0])

    def step(seconds):
        now[0] += seconds
        fresh.append(acting.heartbeat.is_fresh())

    class Slow:
        def tick(self):
            step(100)

    acting._by_model = dict.fromkeys("abc", Slow())
    monkeypatch.setattr(acting, "_models", lambda: [*"abc"])
    acting.tick()
    assert fresh == [True] * 3
    stored, version = store.read_required(late.journal(), "late")
    over = end_release(stored, "rolled_back", "x", at=MOMENT)
    with late.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, stored, over, expect=version)
        transaction.put(store.WAITING, "late", {"uri": "late/7", "principal": msgspec.to_builtins(ADA)})

    def begin(*_, progress, **__):
        for text in ("compare", "prepare"):
            step(500)
            progress(text)
        step(500)

    monkeypatch.setattr("cumulant.flows.release.controller_process.start_release", begin)
    monkeypatch.setattr(acting, "tick", lambda: [over])
    rounds = iter((False, True))
    run(late, acting, lambda _: next(rounds), world.said.append)
    assert fresh[3:] == [True] * 3
    step(121)
    assert not fresh[-1], "outside a start a step has two minutes"


def test_a_candidate_that_waits_begins_when_the_other_is_over(tmp_path, clock):
    with project(tmp_path / "late", clock=clock) as late:
        note = {"uri": "late/3", "principal": msgspec.to_builtins(ADA)}
        now = start(release())
        with late.journal().transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, now, expect=0)
            transaction.put(store.WAITING, "late", note)
        asked = []
        assert start_waiting_release(late, begin=lambda *words, **other: asked.append(words[1])) is None
        assert asked == []
        with late.journal().transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, now, end_release(now, "rolled_back", "x", at=MOMENT), expect=1)
        start_waiting_release(late, begin=lambda *words, **other: asked.append((words[1], other["principal"])))
        assert asked == [("late/3", ADA)]


def test_a_candidate_that_waits_for_a_release_keeps_the_approval_that_was_asked_for(world):
    asked = []
    with world.late.journal().transaction(actor=Actor("user:ada")) as transaction:
        now, version = store.read_required(world.late.journal(), "late")
        store.write(transaction, now, end_release(now, "rolled_back", "x", at=MOMENT), expect=version)
        note = {"uri": "late/7", "principal": msgspec.to_builtins(ADA), "approval": True}
        transaction.put(store.WAITING, "late", note)
    start_waiting_release(world.late, begin=lambda *_, **how: asked.append(how["approval"]))
    assert asked == [True]

    def lacking(*_, **__):
        raise OutOfMemoryError("the comparison has too little memory")

    with pytest.raises(OutOfMemoryError):
        start_waiting_release(world.late, begin=lacking)
    assert world.late.journal().get(store.WAITING, "late") is None, "each round would lack it again"


def test_a_promotion_that_the_registry_does_not_know_yet_is_not_overwritten(tmp_path, clock):
    from cumulant.core.errors import LeaseHeldError

    with project(tmp_path / "late", clock=clock) as late:
        served(late, "1", v1="http://127.0.0.1:1", v2="http://127.0.0.1:2")
        change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, candidate="2"))
        over = end_release(start(release()), "promoted", "", at=MOMENT)
        with late.journal().transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, over, expect=0)
        with pytest.raises(LeaseHeldError, match="registry does not say so yet"):
            start_release(late, "late/3", principal=ADA, clock=clock)
        assert read_desired_state(late.state, "late").candidate == "2"


def superseded(tmp_path, clock, receiver, stack):
    """A project whose release of a first candidate gave way to one of a second."""
    text = f"{SHORT}monitoring: {{notify: ['{receiver.url}']}}\n"
    late = stack.enter_context(project(tmp_path / "late", text, clock=clock))
    one, two, three = (stack.enter_context(serving()) for _ in range(3))
    for other in (two, three):
        clock.sleep(5)
        start_release(late, principal=ADA, outside=ExternalServers(champion=one.url, candidate=other.url), clock=clock)
    return late, store.list_past(late.journal(), "late")[0]


def told(late, receiver, clock):
    deliver(late, clock=clock)
    return [(message["subject"], message["status"]) for message in receiver.posted]


def test_people_are_told_of_a_release_that_a_newer_one_superseded(tmp_path, clock):
    with serving() as receiver, ExitStack() as stack:
        late, old = superseded(tmp_path, clock, receiver, stack)
        assert told(late, receiver, clock) == told(late, receiver, clock) == [(old.id, "superseded")]
        assert "was superseded in" in receiver.posted[0]["text"]
        assert next(late.journal().events(kinds=("release.told",))).data["release"] == old.id


def test_people_are_told_of_a_release_that_was_ended_and_begun_again_at_once(tmp_path, clock):
    with serving() as receiver, ExitStack() as stack:
        late, old = superseded(tmp_path, clock, receiver, stack)
        second = abort(late, principal=ADA, reason="again", clock=clock)
        clock.sleep(5)
        arms = ExternalServers(champion=second.champion.version, candidate=second.candidate.version)
        start_release(late, principal=ADA, outside=arms, clock=clock)
        assert told(late, receiver, clock) == [(old.id, "superseded"), (second.id, "rolled_back")]


def test_a_candidate_that_cannot_begin_is_told_once_and_holds_up_no_round(world):
    said, pauses = [], []
    with world.late.journal().transaction(actor=Actor("user:ada")) as transaction:
        now, version = store.read_required(world.late.journal(), "late")
        store.write(transaction, now, end_release(now, "rolled_back", "x", at=MOMENT), expect=version)
        transaction.put(store.WAITING, "late", {"uri": "late/77", "principal": msgspec.to_builtins(ADA)})

    def asked(seconds):
        pauses.append(seconds)
        return len(pauses) > 4

    run(world.late, Controllers(world.late, said.append, settle=1), asked, LogLines(said.append))
    assert pauses == [1] * 5
    assert len([one for one in said if "does not begin" in one]) == 1
    assert world.late.journal().get(store.WAITING, "late") is None


def test_a_candidate_that_waits_is_begun_by_the_controller_that_acts(world):
    late, said = world.late, []
    with late.journal().transaction(actor=Actor("user:ada")) as transaction:
        now, version = store.read_required(late.journal(), "late")
        store.write(transaction, now, end_release(now, "rolled_back", "x", at=MOMENT), expect=version)
        transaction.put(store.WAITING, "late", {"uri": "late/77", "principal": msgspec.to_builtins(ADA)})

    class Idle:
        """Another one has the lease."""

        heartbeat = Heartbeat()

        def tick(self):
            return []

    def rounds(count):
        left = iter(range(count))
        return lambda _: next(left, None) is None

    run(late, Idle(), rounds(3), said.append)
    run_once(late, Idle(), rounds(20), said.append)
    assert said == []
    assert late.journal().get(store.WAITING, "late") is not None


def test_of_two_that_begin_one_candidate_the_second_is_refused(world):
    late = world.late
    running, version = store.read_required(late.journal(), "late")
    with pytest.raises(LeaseHeldError, match=f"is on its way already, in the release {running.id}"):
        begin_release(
            late,
            "late",
            policy=running.policy,
            arms=(running.champion, running.candidate),
            author="ada",
            evaluation=None,
            at=MOMENT + timedelta(minutes=1),
            principal=ADA,
        )
    assert store.read_required(late.journal(), "late") == (running, version)


def test_one_fault_does_not_blind_the_controller_for_long(world):
    pauses, faults = [], [ZeroDivisionError("once"), StorageError("the disk is full")]

    class Once:
        heartbeat = Heartbeat()

        def tick(self):
            if faults:
                raise faults.pop(0)
            return []

    run(world.late, Once(), lambda seconds: pauses.append(seconds) or len(pauses) > 4, LogLines(lambda _: None))
    assert pauses == [1, 2, 4, 1, 1]


def test_a_model_that_cannot_go_on_stops_no_other(world, monkeypatch):
    late, said = world.late, []
    with late.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, release(model="early"), expect=0)
    apply = late.gateway().apply

    def refused(routes):
        if routes.model == "early":
            raise EngineUnavailableError("the gateway refuses these servers")
        apply(routes)

    monkeypatch.setattr(late.gateway(), "apply", refused)
    found = Controllers(late, said.append, settle=1).tick()
    assert [(one.model, one.status) for one in found] == [("late", "running")]
    assert said == ["early waits: the gateway refuses these servers"]

"""The controller of a release, with a gateway and a journal in memory and a clock that tests turn."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import msgspec
import pytest
from releases import MOMENT, World, release, remembered

from cumulant.core.errors import LeaseHeldError, StorageError
from cumulant.core.events import Actor
from cumulant.core.traffic import CANDIDATE
from cumulant.flows.release import store
from cumulant.flows.release.controller.controller import Controller
from cumulant.release.evidence.health import ArmHealth, RecentHealth
from cumulant.release.evidence.look import Look
from cumulant.release.state import Release
from cumulant.testing.clock import ManualClock
from cumulant.testing.journal import MemoryJournal
from cumulant.testing.traffic import MemoryTraffic

pytestmark = pytest.mark.slow

MODEL = "late"


class Seen:
    """Evidence from a made world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hard = RecentHealth()
        self.looks = 0

    def health(self, release: Release) -> RecentHealth:
        return self.hard

    def look(self, release: Release, seconds: float) -> tuple[Look, str]:
        self.looks += 1
        return self.world.look(release, seconds), str(self.looks)


class Nothing:
    """Effects that fail as often as they are told to."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures = 0

    def pending(self, release: Release) -> tuple[str, ...]:
        return tuple(one for one in ("alias", "notified") if release.over and one not in release.settled)

    def settle(self, release: Release, effect: str) -> bool:
        if self.failures:
            self.failures -= 1
            return False
        self.done.append(effect)
        return True


class Stage:
    """A journal, a gateway, and controllers over them."""

    def __init__(self, world: World) -> None:
        self.clock = ManualClock(MOMENT)
        self.journal = MemoryJournal(clock=self.clock)
        self.traffic = MemoryTraffic()
        self.evidence, self.effects = Seen(world), Nothing()
        self.now, self.pace = 0.0, 1.0
        with self.journal.transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, remembered(release()), expect=0)

    def controller(self) -> Controller:
        return Controller(
            MODEL,
            journal=self.journal,
            traffic=self.traffic,
            evidence=self.evidence,
            effects=self.effects,
            clock=self.clock,
            steady=lambda: self.now,
            pace=lambda: self.pace,
        )

    def release(self) -> Release:
        return store.read_required(self.journal, MODEL)[0]

    def played(self, controller: Controller, *, most: int = 5000, again: int = 0) -> Release:
        """Ticks a second apart until it is over; with `again`, a new controller every so many ticks."""
        for number in range(most):
            if again and number % again == again - 1:
                controller = self.controller()
                self.now += 6
            self.now += 1
            controller.tick()
            if self.release().over:
                return self.release()
        return self.release()


def test_a_candidate_is_promoted_and_the_gateway_follows() -> None:
    stage = Stage(World(seed=1))
    weights = []
    controller = stage.controller()
    for _ in range(5000):
        stage.now += 1
        controller.tick()
        routes = stage.traffic.in_force(MODEL)
        weights.append(routes.weight if routes and routes.candidate else 100.0)
        if stage.release().over:
            break
    assert stage.release().status == "promoted"
    assert sorted(set(weights)) == [0, 10, 50, 95, 100]
    assert weights == sorted(weights)
    kinds = [event.kind for event in stage.journal.events()]
    assert kinds.count("release.started") == 1
    assert kinds.count("release.step_begun") == 5
    assert kinds.count("release.ended") == 1
    assert store.list_past(stage.journal, MODEL)[0].status == "promoted"


def test_controllers_that_are_killed_again_and_again_come_to_the_same_end() -> None:
    stage = Stage(World(seed=2, errors={CANDIDATE: 0.05}))
    over = stage.played(stage.controller(), again=25)
    assert over.status == "rolled_back"
    assert [event.kind for event in stage.journal.events()].count("release.ended") == 1


def test_stages_take_replayed_time_and_looks_do_not() -> None:
    counted, looks = [], []
    for pace in (1.0, 60.0):
        stage = Stage(World(seed=5))
        stage.pace = pace
        controller = stage.controller()
        for _ in range(25):
            stage.now += 1
            controller.tick()
        found = stage.release()
        counted.append(found.seconds + sum(step.seconds for step in found.passed))
        looks.append(stage.evidence.looks)
    assert looks[0] == looks[1] > 0
    assert counted[1] == pytest.approx(60 * counted[0])


def test_of_two_controllers_one_acts() -> None:
    stage = Stage(World(seed=3))
    one, other = stage.controller(), stage.controller()
    acted = []
    for _ in range(300):
        stage.now += 1
        acted.append((one.tick() is not None, other.tick() is not None))
    assert set(acted) == {(True, False)}
    assert stage.release().seconds + sum(step.seconds for step in stage.release().passed) <= 300


def test_another_takes_over_from_one_that_stopped() -> None:
    stage = Stage(World(seed=4))
    stage.controller().tick()
    other = stage.controller()
    acted = []
    for _ in range(10):
        stage.now += 1
        acted.append(other.tick() is not None)
    assert acted[0] is False
    assert acted[-1] is True


def test_hard_failures_bring_back_within_a_tick() -> None:
    stage = Stage(World(seed=5))
    controller = stage.controller()
    for _ in range(60):
        stage.now += 1
        controller.tick()
    assert stage.release().weight == 10
    stage.evidence.hard = RecentHealth(candidate=ArmHealth(not_ready=3.5))
    stage.now += 1
    controller.tick()
    routes = stage.traffic.in_force(MODEL)
    assert stage.release().status == "rolled_back"
    assert routes is not None
    assert routes.weight == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_jumps_of_the_wall_clock_change_nothing(hours: int) -> None:
    plain, jumping = Stage(World(seed=6)), Stage(World(seed=6))
    over = plain.played(plain.controller())
    controller = jumping.controller()
    for number in range(5000):
        jumping.now += 1
        if number % 50 == 0:
            jumping.clock.move(timedelta(hours=hours))
        controller.tick()
        if jumping.release().over:
            break
    assert [one.seconds for one in jumping.release().passed] == [one.seconds for one in over.passed]


def test_a_controller_that_slept_does_not_count_the_time_as_watched() -> None:
    stage = Stage(World(seed=7))
    controller = stage.controller()
    for _ in range(3):
        stage.now += 1
        controller.tick()
    stage.now += 3600
    controller.tick()
    assert stage.release().seconds <= 30


def test_an_unreachable_journal_stops_progress_and_not_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(World(seed=8))
    controller = stage.controller()
    for _ in range(100):
        stage.now += 1
        controller.tick()
    before, routes = stage.release(), stage.traffic.in_force(MODEL)
    with monkeypatch.context() as patch:
        patch.setattr(stage.journal, "get", _unreachable)
        for _ in range(50):
            stage.now += 1
            with pytest.raises(StorageError):
                controller.tick()
    assert (stage.release(), stage.traffic.in_force(MODEL)) == (before, routes)
    assert stage.played(controller).status == "promoted"


def _unreachable(*_: object) -> None:
    raise StorageError("the journal cannot be reached")


def test_a_rollback_beside_the_journal_ends_the_release() -> None:
    stage = Stage(World(seed=9))
    controller = stage.controller()
    for _ in range(100):
        stage.now += 1
        controller.tick()
    routes = stage.traffic.in_force(MODEL)
    assert routes is not None
    stage.traffic.apply(msgspec.structs.replace(routes, candidate=None, weight=0, mirror=0, revision=99))
    stage.now += 1
    controller.tick()
    assert stage.release().status == "rolled_back"
    assert stage.release().revision == 99
    assert stage.traffic.in_force(MODEL) == msgspec.structs.replace(
        routes, candidate=None, weight=0, mirror=0, revision=99
    )


@pytest.mark.parametrize("where", ["look", "apply"])
def test_a_rollback_at_the_moment_of_a_step_is_not_undone(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(World(seed=9))
    controller = stage.controller()
    while stage.release().at < 1 or stage.release().seconds < 50:
        stage.now += 1
        controller.tick()
    before = stage.traffic.in_force(MODEL)
    assert before is not None
    back = before.all_to(before.champion, revision=before.revision + 1, rollback="at/1")
    owner, name = (stage.evidence, "look") if where == "look" else (stage.traffic, "apply")
    real = getattr(owner, name)

    def meanwhile(*arguments: object) -> object:
        if stage.traffic.in_force(MODEL) == before:
            MemoryTraffic.apply(stage.traffic, back)
        return real(*arguments)

    monkeypatch.setattr(owner, name, meanwhile)
    for _ in range(200):
        stage.now += 1
        with contextlib.suppress(LeaseHeldError):
            controller.tick()
    assert stage.traffic.in_force(MODEL) == back
    assert stage.release().status == "rolled_back"
    assert "beside the release" in stage.release().reason
    (ended,) = stage.journal.events(kinds=("release.ended",))
    assert stage.release().rollback == ended.data["rollback"] == "at/1"


def test_while_both_arms_fail_hard_the_release_waits() -> None:
    stage = Stage(World(seed=12))
    controller = stage.controller()
    down = ArmHealth(requests=100, failures=90)
    stage.evidence.hard = RecentHealth(champion=down, candidate=down)
    for _ in range(300):
        stage.now += 1
        controller.tick()
    assert (stage.release().status, stage.release().at) == ("running", 0)
    assert "waits" in stage.release().reason
    stage.evidence.hard = RecentHealth()
    assert stage.played(controller).status == "promoted"


def test_what_an_end_asks_for_is_done_again_until_it_is_done_and_then_not() -> None:
    stage = Stage(World(seed=10, errors={CANDIDATE: 0.2}))
    stage.effects.failures = 3
    controller = stage.controller()
    stage.played(controller)
    for _ in range(10):
        stage.now += 1
        controller.tick()
    assert stage.effects.done == ["alias", "notified"]
    assert stage.release().settled == {"alias", "notified"}


def test_a_stale_write_is_refused() -> None:
    stage = Stage(World(seed=11))
    found, version = store.read_required(stage.journal, MODEL)
    with stage.journal.transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, found, found, expect=version)
    with pytest.raises(LeaseHeldError), stage.journal.transaction(actor=Actor("user:bob")) as transaction:
        store.write(transaction, found, found, expect=version)

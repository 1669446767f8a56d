"""Releases and the objectives of the served model: none begins or goes on while one is missed, unless overridden."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from functools import partial

import msgspec
import pytest
from release_servers import project, served, serving
from releases import MOMENT

from cumulant.core.errors import ForbiddenError, ObjectiveMissedError, StorageError, UsageError
from cumulant.core.events import Actor
from cumulant.core.traffic import CANDIDATE, CHAMPION, Exchange
from cumulant.core.units import to_micros
from cumulant.flows.observe import gateway_requests
from cumulant.flows.release import actions, slo_gate, store
from cumulant.flows.release.controller.external_servers import ExternalServers
from cumulant.flows.release.controller_process import build_controller
from cumulant.flows.release.slo_gate import SloGateReader
from cumulant.flows.release.start import start as starting
from cumulant.flows.release.start.start import start_release, start_waiting_release
from cumulant.flows.release.views import view
from cumulant.ports.access import Principal
from cumulant.ports.registry import ModelVersion
from cumulant.testing.access import GrantedAccess

ADA = Principal("user:ada")
TEXT = """
serving: {slo: {objective: 99.9%}}
release:
  slo: SLO
  look: 2s
  block: 2s
  metrics: {latency: {required: false}, errors: {margin: 20%}, timeouts: {margin: 20%}}
  stages:
    ab: null
    canary: {weights: [10%, 50%], at_least: 4s, soak: 6s, samples: 20}
"""
BURNS = "the error budget of availability burns"


def answer(late, clock, count, *, failing=0.0, failing_arm=CHAMPION):
    """Requests of this moment; of all the share `failing` ends with a server error, of `failing_arm` alone."""
    routes = late.gateway().in_force("late")
    weight = routes.weight if routes else 0
    for number in range(count):
        arm = CANDIDATE if number * 100 < weight * count else CHAMPION
        chosen = number >= count * (1 - failing) if failing_arm == CHAMPION else number < count * failing
        bad = arm == failing_arm and chosen
        exchange = Exchange(
            request="r",
            time=to_micros(clock.now()),
            model="late",
            assigned=arm,
            served=arm,
            status=503 if bad else 200,
            duration_us=2000,
            revision=routes.revision if routes else 0,
        )
        late.gateway().put([exchange])


class World:
    """Two servers that are compared under the project's model; twenty requests a second."""

    def __init__(self, late, clock, one, other) -> None:
        self.late, self.clock, self.now = late, clock, 0.0
        self.outside = ExternalServers(champion=one.url, candidate=other.url)
        self.acting = build_controller(late, lambda _: None, clock=clock, steady=lambda: self.now)

    def begin(self, **how):
        return start_release(self.late, principal=ADA, outside=self.outside, clock=self.clock, **how)

    def answer(self, count, **how):
        answer(self.late, self.clock, count, **how)

    def second(self, *, count=20, **how):
        self.answer(count, **how)
        self.now += 1
        self.clock.move(timedelta(seconds=1))
        self.acting.tick()
        return self.release

    def seconds(self, number, **how):
        for _ in range(number):
            self.second(**how)
        return self.release

    @property
    def release(self):
        return store.read_required(self.late.journal(), "late")[0]

    def events(self):
        return [event for event in self.late.journal().events() if event.kind.startswith("release.slo")]


@pytest.fixture
def world(request, tmp_path, clock):
    text = TEXT.replace("SLO", getattr(request, "param", "budget"))
    with serving() as one, serving() as other, project(tmp_path / "late", text, clock=clock) as late:
        yield World(late, clock, one, other)


def test_a_release_begins_only_once_the_objectives_are_met(world):
    world.answer(1000, failing=0.05)
    with pytest.raises(ObjectiveMissedError, match=BURNS) as caught:
        world.begin()
    assert caught.value.retryable
    assert "--override-slo" in caught.value.hint
    assert store.read(world.late.journal(), "late") is None
    world.clock.move(timedelta(days=31))
    assert world.begin().release.status == "pending"


def test_few_requests_stop_no_release(world):
    world.answer(99, failing=1.0)
    assert world.begin().release.status == "pending"


@pytest.mark.parametrize("world", ["none"], indirect=True)
def test_a_project_may_release_whatever_the_objectives_are(world):
    world.answer(1000, failing=0.05)
    world.begin()
    assert world.seconds(20, failing=0.3).slo_hold == ""


def test_a_log_that_cannot_be_read_is_not_taken_for_a_met_objective(world, monkeypatch):
    def fail(*_, **__):
        raise StorageError("the log is damaged")

    monkeypatch.setattr(world.late.gateway(), "exchanges", fail)
    with pytest.raises(StorageError):
        world.begin()
    assert store.read(world.late.journal(), "late") is None


def test_a_log_of_which_the_objectives_cannot_be_read_holds_a_release_and_no_rollback(world, monkeypatch):
    """The evidence reads on from its own place: a part that is damaged before it concerns the objectives alone."""

    class Damaged:
        def exchanges(self, after="", *, limit):
            raise StorageError("an old part of the log is damaged")

    world.begin()
    world.seconds(3)
    with monkeypatch.context() as patched:
        for module in (slo_gate, gateway_requests):
            patched.setattr(module, "exchanges_of", lambda _: Damaged())
        at = world.release.at
        held = world.seconds(20)
        assert (held.status, held.at) == ("running", at)
        assert "cannot be read" in held.slo_hold
    assert world.second(count=0).slo_hold == ""
    monkeypatch.setattr(slo_gate, "exchanges_of", lambda _: Damaged())
    for _ in range(60):
        if world.second(failing=0.5, failing_arm=CANDIDATE, count=200).over:
            break
    assert world.release.status == "rolled_back", world.release.reason


def test_a_candidate_that_is_the_fix_is_released_with_a_reason_that_is_recorded(world):
    """The champion fails and spends the budget, before and during the release."""
    world.answer(1000, failing=0.05)
    world.begin(override_slo="  it fixes the failures ")
    for _ in range(200):
        if world.second(failing=0.1).over:
            break
    assert world.release.status == "promoted", world.release.reason
    overridden, *_ = world.events()
    assert (overridden.kind, overridden.actor) == ("release.slo_overridden", "user:ada")
    assert overridden.data["reason"] == "overridden by ada: it fixes the failures"
    assert view(world.release).slo_override == "overridden by ada: it fixes the failures"


@pytest.mark.parametrize("world", ["page"], indirect=True)
def test_a_release_does_not_go_on_while_the_champion_burns_the_budget(world, monkeypatch):
    world.answer(1000)
    world.clock.move(timedelta(hours=2))
    world.begin()
    world.seconds(3)
    held = world.seconds(60, failing=0.3)
    assert (held.status, held.step.label) == ("running", "canary 10%")
    assert BURNS in held.reason
    assert "candidate 0 of" in held.reason
    assert any(BURNS in text for text in view(held).lacks)
    # A controller that is started now counts the release's requests from its beginning, each once.
    read = []

    class Observed:
        def exchanges(self, after="", *, limit):
            page, cursor = world.late.gateway().exchanges(after, limit=limit)
            read.extend(exchange.time for exchange in page)
            return page, cursor

    monkeypatch.setattr(slo_gate, "exchanges_of", lambda _: Observed())
    later, whole = (SloGateReader(world.late, clock=world.clock) for _ in range(2))
    assert later.hold(held) == later.hold(held)
    assert (min(read), len(read)) == (read[0], 63 * 20)
    assert read[0] >= to_micros(held.begun)
    assert later.hold(held) == whole.hold(msgspec.structs.replace(held, start_cursor=""))
    assert len(read) == 63 * 20 + 1000 + 63 * 20
    world.clock.move(timedelta(minutes=31))
    cleared = world.seconds(20)
    assert cleared.slo_hold == ""
    assert cleared.at > 0
    assert [event.kind for event in world.events()] == ["release.slo_held", "release.slo_met"]


def test_a_spent_budget_holds_a_release_until_it_is_overridden(world):
    world.begin()
    world.seconds(3)
    at = world.seconds(10, failing=0.3).at
    world.clock.move(timedelta(minutes=31))
    held = world.seconds(20)
    assert (held.status, held.at) == ("running", at)
    assert "the error budget of availability is spent" in held.reason
    with pytest.raises(UsageError, match="reason is empty"):
        actions.override_objectives(world.late, principal=ADA, reason=" ")
    actions.override_objectives(world.late, principal=ADA, reason="the cause is gone")
    with pytest.raises(UsageError, match="overridden by ada"):
        actions.override_objectives(world.late, principal=ADA, reason="again")
    for _ in range(100):
        if world.second().over:
            break
    assert world.release.status == "promoted"
    assert world.events()[-1].data["reason"] == "overridden by ada: the cause is gone"
    assert "is spent" in world.events()[-1].data["hold"]
    with pytest.raises(UsageError, match="is promoted and overridden by ada"):
        actions.override_objectives(world.late, principal=ADA, reason="late")


@pytest.mark.parametrize("world", ["page"], indirect=True)
@pytest.mark.parametrize("jump", [timedelta(hours=-3), timedelta(days=60)], ids=["back", "ahead"])
def test_a_jump_of_the_clock_does_not_release_what_is_held(world, jump):
    world.begin()
    world.seconds(3)
    assert BURNS in world.seconds(20, failing=0.3).slo_hold
    world.clock.move(jump)
    assert BURNS in world.seconds(20, count=0).slo_hold
    world.acting = build_controller(world.late, lambda _: None, clock=world.clock, steady=lambda: world.now)
    world.now += 10  # until the lease of the killed controller expires
    assert BURNS in world.seconds(10, count=0).slo_hold
    if jump > timedelta():
        assert world.seconds(10).slo_hold == ""


def test_only_who_steers_releases_may_override(world, monkeypatch):
    world.answer(1000, failing=0.05)
    monkeypatch.setattr(world.late, "access", lambda: GrantedAccess({("user:ada", "release.start")}))
    with pytest.raises(ForbiddenError, match=r"release\.steer"):
        world.begin(override_slo="it fixes the failures")


@pytest.fixture
def waiting(tmp_path, clock, monkeypatch):
    """Version 2 is the champion, and 3 waits; only the registry's part is left out."""
    with ExitStack() as stack:
        late = stack.enter_context(project(tmp_path / "late", TEXT.replace("SLO", "budget"), clock=clock))
        two, three = (stack.enter_context(serving()) for _ in range(2))
        served(late, "2", v2=two.url, v3=three.url)
        version = ModelVersion(name="late", version="3", uri="models:/late/3", run_id=None, created=MOMENT)
        monkeypatch.setattr(starting, "find_candidate", lambda *_: version)
        for name, result in (("adopt", None), ("renew_servers", None), ("find_author", "")):
            monkeypatch.setattr(starting, name, lambda *_, result=result, **__: result)
        with late.journal().transaction(actor=Actor("user:ada")) as transaction:
            transaction.put(
                store.WAITING, "late", {"uri": "late/3", "principal": {"id": "user:ada"}, "approval": False}
            )
        yield late


def test_a_candidate_that_waits_keeps_waiting_until_the_objectives_are_met(waiting, clock):
    answer(waiting, clock, 1000, failing=0.05)
    with pytest.raises(ObjectiveMissedError):
        start_waiting_release(waiting, begin=partial(start_release, slo=SloGateReader(waiting, clock=clock)))
    assert store.read(waiting.journal(), "late") is None
    assert waiting.journal().get(store.WAITING, "late") is not None
    clock.move(timedelta(days=31))
    begun = start_waiting_release(
        waiting, begin=partial(start_release, slo=SloGateReader(waiting, clock=clock))
    ).release
    assert begun.candidate.version == "3"


def test_a_candidate_that_waits_with_a_reason_begins_at_once(waiting, clock):
    answer(waiting, clock, 1000, failing=0.05)
    with waiting.journal().transaction(actor=Actor("user:ada")) as transaction:
        note = {"uri": "late/3", "principal": {"id": "user:ada"}, "override_slo": "it fixes the failures"}
        transaction.put(store.WAITING, "late", note)
    begun = start_waiting_release(
        waiting, begin=partial(start_release, slo=SloGateReader(waiting, clock=clock))
    ).release
    assert begun.slo_override == "overridden by ada: it fixes the failures"

"""A release begins against the champion that it was prepared against, or not at all."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import msgspec
import pytest
from release_servers import served, serving
from releases import MOMENT, release

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.release import store
from cumulant.flows.release.controller.external_servers import ExternalServers
from cumulant.flows.release.controller.rollback_outbox import list_rollbacks
from cumulant.flows.release.controller_process import build_controller
from cumulant.flows.release.rollback import roll_back
from cumulant.flows.release.start import start as starting
from cumulant.flows.release.start.start import start_release
from cumulant.flows.release.views import sentence
from cumulant.flows.stack.desired_state import change_desired_state, read_desired_state
from cumulant.ports.access import Principal
from cumulant.ports.registry import ModelVersion
from cumulant.release.decide import end_release, start
from cumulant.release.state import desired_routes

ADA = Principal("user:ada", ("risk",))
CHANGED = "prepared against version 2, and version 1 is the champion now"


@pytest.fixture
def prepared(late, monkeypatch):
    """Version 2 is the champion, 1 was, and 3 is to be released; only the registry's part is left out."""
    with ExitStack() as stack:
        one, two, three = (stack.enter_context(serving()) for _ in range(3))
        served(late, "2", v1=one.url, v2=two.url, v3=three.url)
        change_desired_state(late.state, "late", lambda book: msgspec.structs.replace(book, former=("1",)))
        version = ModelVersion(name="late", version="3", uri="models:/late/3", run_id=None, created=MOMENT)
        monkeypatch.setattr(starting, "find_candidate", lambda *_: version)
        for name, result in (("adopt", None), ("renew_servers", None), ("find_author", "")):
            monkeypatch.setattr(starting, name, lambda *_, result=result, **__: result)
        yield late


def meanwhile(monkeypatch, name, action):
    """Let `action` happen once when the start calls `name`, before it is done."""
    real, left = getattr(starting, name), [action]

    def call(*words, **other):
        if left:
            left.pop()()
        return real(*words, **other)

    monkeypatch.setattr(starting, name, call)


@pytest.mark.parametrize("moment", ["admit_candidate", "adopt", "wait_until_ready", "begin_release"])
def test_a_rollback_while_a_release_is_prepared_is_not_undone(prepared, clock, monkeypatch, moment):
    meanwhile(monkeypatch, moment, lambda: roll_back(prepared, "late", principal=ADA, reason="complaints", clock=clock))
    with pytest.raises(LeaseHeldError, match=CHANGED):
        start_release(prepared, "late/3", principal=ADA, clock=clock)
    assert store.read(prepared.journal(), "late") is None
    desired = read_desired_state(prepared.state, "late")
    assert (desired.champion, desired.candidate) == ("1", None)
    assert prepared.gateway().in_force("late").champion.version == "1"
    begun = start_release(prepared, "late/3", principal=ADA, clock=clock).release
    assert begun.champion.version == "1", "started again, it is compared with the version that serves"


def test_a_champion_that_is_gone_when_the_candidate_is_prepared_is_no_version(prepared, clock, monkeypatch):
    def remove():
        change_desired_state(prepared.state, "late", lambda desired: msgspec.structs.replace(desired, champion=None))

    meanwhile(monkeypatch, "adopt", remove)
    with pytest.raises(LeaseHeldError, match="prepared against version 2, and there is no champion now"):
        start_release(prepared, "late/3", principal=ADA, clock=clock)


def test_a_rollback_of_which_only_the_routes_know_yet_is_not_undone(prepared, clock):
    routes, desired = prepared.gateway().in_force("late"), read_desired_state(prepared.state, "late")
    prepared.gateway().apply(routes.all_to(desired.arm("1", "champion"), revision=routes.revision + 1))
    with pytest.raises(LeaseHeldError, match=CHANGED):
        start_release(prepared, "late/3", principal=ADA, clock=clock)
    assert store.read(prepared.journal(), "late") is None


def test_a_promotion_while_the_next_release_is_prepared_is_not_undone(prepared, clock, monkeypatch):
    """The controller has stored the promotion of version 4, and was killed before it changed the routes."""
    servers = prepared.gateway().in_force("late").champion
    running = start(release(champion=servers, candidate=Arm(name="candidate", version="4", endpoints=("http://c",))))
    with prepared.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, running, expect=0)

    def promote():
        with prepared.journal().transaction(actor=Actor("service:c")) as transaction:
            store.write(transaction, running, end_release(running, "promoted", "shown", at=MOMENT), expect=1)

    meanwhile(monkeypatch, "begin_release", promote)
    with pytest.raises(LeaseHeldError, match="promoted version 4, and the registry does not say so yet"):
        start_release(prepared, "late/3", principal=ADA, clock=clock)
    assert store.read(prepared.journal(), "late")[0].status == "promoted"


@pytest.mark.parametrize("revisions", [0, 1])
def test_a_rollback_before_the_first_round_of_the_controller_is_not_undone(prepared, clock, revisions):
    """Also where the release has the revision of the rollback, as after one that it supersedes."""
    begun = start_release(prepared, "late/3", principal=ADA, clock=clock).release
    with prepared.journal().transaction(actor=Actor("user:ada")) as transaction:
        raised = msgspec.structs.replace(begun, revision=begun.revision + revisions)
        store.write(transaction, begun, raised, expect=1)
    roll_back(prepared, "late", principal=ADA, reason="complaints", clock=clock)
    controller = build_controller(prepared, lambda _: None, clock=clock)
    for _ in range(3):
        with suppress(LeaseHeldError):
            controller.tick()
    ended = store.read(prepared.journal(), "late")[0]
    assert ended.status == "rolled_back"
    assert sentence(ended, list_rollbacks(prepared, "late")).endswith(", by ada at 2026-05-01 00:00:00Z: complaints")
    (event,) = prepared.journal().events(kinds=("release.rolled_back",))
    assert event.data["rollback"] == ended.rollback
    assert prepared.gateway().in_force("late").champion.version == "1"


def test_a_release_begins_beside_routes_to_external_servers_unless_these_change(prepared, clock, monkeypatch):
    """The project's own release, where its requests went to servers that are not its own."""
    traffic = prepared.gateway()

    def route(version):
        routes = traffic.in_force("late")
        arm = Arm(name="champion", version=version, endpoints=(version,))
        traffic.apply(routes.all_to(arm, revision=routes.revision + 1))

    route("http://one")
    meanwhile(monkeypatch, "begin_release", lambda: route("http://two"))
    with pytest.raises(LeaseHeldError, match="version http://two is the champion now"):
        start_release(prepared, "late/3", principal=ADA, clock=clock)
    begun = start_release(prepared, "late/3", principal=ADA, clock=clock).release
    build_controller(prepared, lambda _: None, clock=clock).tick()
    assert traffic.in_force("late").champion.version == begun.champion.version == "2"


def test_a_second_release_of_external_servers_has_a_champion_of_its_own(late, clock):
    with serving() as one, serving() as other, serving() as third, serving() as fourth:
        outside = ExternalServers(champion=one.url, candidate=other.url)
        first = start_release(late, principal=ADA, outside=outside, clock=clock).release
        late.gateway().apply(desired_routes(start(first)))
        clock.sleep(5)
        outside = ExternalServers(champion=third.url, candidate=fourth.url)
        start_release(late, principal=ADA, outside=outside, clock=clock)
        build_controller(late, lambda _: None, clock=clock).tick()
    assert late.gateway().in_force("late").champion.version == third.url

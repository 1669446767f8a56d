"""A release whose servers come and go on several machines."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from releases import MOMENT, World, release, remembered
from test_release_controller import MODEL, Nothing, Seen

from cumulant.core.errors import LeaseHeldError, StorageError
from cumulant.core.events import Actor
from cumulant.core.traffic import CHAMPION, Routes
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.deployment.host_report import HostReport, write_report
from cumulant.flows.ledger.processes import Process
from cumulant.flows.release import store
from cumulant.flows.release.controller.controller import Controller
from cumulant.flows.release.controller.route_keeper import RouteKeeper, routes_to_servers
from cumulant.ports.deploy import ServerState
from cumulant.project.file.loading import load
from cumulant.release.state import desired_routes
from cumulant.testing.clock import ManualClock
from cumulant.testing.traffic import MemoryTraffic

FILE = f"version: 1\nmodel: {{name: {MODEL}}}\nenvironments: {{local: {{deploy: 'hosts://'}}}}\n"


class Stage:
    """A controller of a project on several machines."""

    def __init__(self, project) -> None:
        self.project, self.traffic, self.clock = project, MemoryTraffic(), ManualClock(MOMENT)
        self.journal, self.evidence, self.now = project.journal(), Seen(World(seed=1)), 0.0
        self.first = remembered(release())
        with self.journal.transaction(actor=Actor("user:ada")) as transaction:
            store.write(transaction, None, self.first, expect=0)

    def controller(self) -> Controller:
        return Controller(
            MODEL,
            journal=self.journal,
            traffic=self.traffic,
            evidence=self.evidence,
            effects=Nothing(),
            clock=self.clock,
            steady=lambda: self.now,
            keeper=RouteKeeper(self.project, self.traffic),
        )

    def report(self, host: str) -> None:
        """A machine with ready servers of both versions."""
        arms = (self.first.champion, self.first.candidate)
        servers = tuple(
            ServerState(version=arm.version, endpoint=f"http://{host}:{place}", ready=True, host=host)
            for place, arm in enumerate(arms, 1)
        )
        supervisor = Process("elsewhere:0", 1, "1")
        write_report(self.journal, HostReport(host=host, roles=("servers",), supervisor=supervisor, servers=servers))

    @property
    def stored(self):
        return store.read_required(self.journal, MODEL)[0]


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(FILE)
    with load(tmp_path) as project:
        yield Stage(project)


def test_a_release_goes_on_with_the_servers_that_there_are(stage):
    controller = stage.controller()
    controller.tick()
    before = stage.stored
    assert before.status == "running"
    stage.report("a")
    stage.report("b")
    controller.tick()
    after = stage.stored
    assert after.champion.endpoints == ("http://a:1", "http://b:1")
    assert after.candidate.endpoints == ("http://a:2", "http://b:2")
    assert (after.status, after.revision) == ("running", before.revision + 1)
    assert stage.traffic.in_force(MODEL).revision == after.revision
    controller.tick()
    assert stage.stored.revision == after.revision


def test_routes_follow_the_servers_without_evidence(stage):
    controller = stage.controller()
    controller.tick()
    stage.report("a")

    def fails(_):
        raise StorageError("the log cannot be read")

    stage.evidence.health = fails
    with pytest.raises(StorageError):
        controller.tick()
    assert stage.traffic.in_force(MODEL).champion.endpoints == ("http://a:1",)
    assert stage.stored.champion.endpoints == ("http://a:1",)


@pytest.mark.parametrize("beyond", [1, 2])
def test_a_rollback_at_the_moment_in_which_servers_come_stays(stage, beyond):
    controller = stage.controller()
    controller.tick()
    stage.report("a")
    routes = stage.traffic.in_force(MODEL)
    arm = msgspec.structs.replace(routes.candidate, name=CHAMPION)
    stage.traffic.apply(routes.all_to(arm, revision=routes.revision + beyond))
    controller.tick()
    assert stage.stored.status == "rolled_back"
    present = stage.traffic.in_force(MODEL)
    assert (present.champion.version, present.candidate) == (arm.version, None)
    assert present.champion.endpoints == ("http://a:2",)


def test_a_controller_killed_between_row_and_routes_applies_them_next(stage):
    controller = stage.controller()
    controller.tick()
    stage.report("a")
    apply, stage.traffic.apply = stage.traffic.apply, None
    with pytest.raises(TypeError):
        controller.tick()
    stage.traffic.apply = apply
    stage.controller().tick()  # another one waits for the lease
    controller.tick()
    assert stage.traffic.in_force(MODEL).champion.endpoints == ("http://a:1",)
    assert stage.stored.status == "running"


@pytest.mark.parametrize("came", [1, 3])
def test_a_release_begins_though_servers_came_while_it_was_written(stage, came):
    routes = Routes(model=MODEL, revision=stage.first.revision, champion=stage.first.champion)
    for place in range(came):
        stage.report(f"m{place}")
        routes = routes_to_servers(routes, deployment_of(stage.project).present(MODEL))
    stage.traffic.apply(routes)
    assert routes.revision == stage.first.revision + came
    stage.controller().tick()
    assert (stage.stored.status, stage.stored.reason) == ("running", "shadow begins")
    present = stage.traffic.in_force(MODEL)
    assert present == desired_routes(stage.stored)
    assert present.revision > routes.revision
    assert present.champion.endpoints == routes.champion.endpoints


def test_a_rollback_to_another_version_before_a_release_begins_ends_it(stage):
    former = msgspec.structs.replace(stage.first.champion, version="0")
    back = Routes(model=MODEL, revision=stage.first.revision + 1, champion=former)
    stage.traffic.apply(back)
    stage.controller().tick()
    assert (stage.stored.status, stage.stored.revision) == ("rolled_back", back.revision)
    assert stage.traffic.in_force(MODEL).champion.version == "0"


def test_a_rollback_at_the_moment_in_which_a_release_begins_stays(stage, monkeypatch):
    former = msgspec.structs.replace(stage.first.champion, version="0")
    back = Routes(model=MODEL, revision=stage.first.revision + 1, champion=former)
    read, reads = stage.traffic.in_force, []

    def in_force(model):
        found = read(model)
        if not reads:  # after the first reading
            stage.traffic.apply(back)
        reads.append(model)
        return found

    monkeypatch.setattr(stage.traffic, "in_force", in_force)
    controller = stage.controller()
    for _ in range(3):
        with contextlib.suppress(LeaseHeldError):
            controller.tick()
    assert read(MODEL) == back
    assert stage.stored.status == "rolled_back"

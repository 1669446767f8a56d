"""A release whose servers come and go on several machines."""

from __future__ import annotations

import msgspec
import pytest
from releases import MOMENT, World, release, remembered
from test_release_controller import MODEL, Nothing, Seen

from cumulant.core.errors import StorageError
from cumulant.core.events import Actor
from cumulant.core.traffic import CHAMPION
from cumulant.flows.deployment.host_report import HostReport, write_report
from cumulant.flows.ledger.processes import Process
from cumulant.flows.release import store
from cumulant.flows.release.controller.controller import Controller
from cumulant.flows.release.controller.route_keeper import RouteKeeper
from cumulant.ports.deploy import ServerState
from cumulant.project.file.loading import load
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

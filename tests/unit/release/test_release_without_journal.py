"""Rollback on the machine of a gateway while the journal, which several machines share, does not answer."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from release_servers import project, serving
from releases import MOMENT

from cumulant.core.errors import EngineUnavailableError, LeaseHeldError
from cumulant.core.traffic import Arm, Routes
from cumulant.flows.deployment.copy import read_copy, renew_copy, send_rollbacks
from cumulant.flows.deployment.deployment import HostsDeployment
from cumulant.flows.release.rollback import roll_back, with_rollback
from cumulant.flows.stack.desired_state import ServedVersion
from cumulant.flows.traffic.agent import GatewayAgent
from cumulant.flows.traffic.clients import traffic_of
from cumulant.ports.access import Principal
from cumulant.ports.deploy import ServerState
from cumulant.ports.traffic import GatewayAddress
from cumulant.testing.clock import ManualClock

ADA = Principal(id="user:ada")
HOSTS = "environments: {local: {deploy: 'hosts://'}}\n"


def arm(version, url):
    return Arm(name="champion", version=version, endpoints=(url,))


@pytest.fixture
def late(tmp_path):
    with project(tmp_path / "late", HOSTS + "model: {name: late}\n", clock=ManualClock(MOMENT)) as found:
        yield found


@pytest.fixture
def servers():
    with serving() as one, serving() as other:
        yield {"1": one.url, "2": other.url}


@pytest.fixture
def away(late, servers, monkeypatch):
    """Version 2 is the champion, 1 was; the machine has a copy, and then the journal is away. Call it: it is back."""
    deployment = HostsDeployment(late)
    versions = {version: ServedVersion(version=version) for version in servers}
    deployment.change(
        "late",
        lambda desired: msgspec.structs.replace(desired, champion="2", former=("1",), versions=versions),
    )
    present = [
        ServerState(version=version, endpoint=url, ready=True, host="servers-1") for version, url in servers.items()
    ]
    monkeypatch.setattr(HostsDeployment, "present", lambda *_: present)
    renew_copy(late, deployment)
    traffic_of(late).apply(Routes(model="late", revision=7, champion=arm("2", servers["2"])))
    GatewayAgent(late.gateway(), late.journal(), host="gateway-1").round()
    journal = late.journal()

    def unreachable():
        raise EngineUnavailableError("the journal is away")

    monkeypatch.setattr(late, "journal", unreachable)
    return lambda: monkeypatch.setattr(late, "journal", lambda: journal)


def test_the_own_gateway_goes_back_and_the_others_follow_when_the_journal_is_back(late, servers, away, monkeypatch):
    monkeypatch.setattr(late.gateway(), "address", lambda: GatewayAddress(url="http://g", admin="", pid=1))
    result = roll_back(late, "late", principal=ADA, reason="complaints", clock=ManualClock(MOMENT))
    assert (result.version, result.given_up, result.later) == ("1", ("2",), True)
    assert result.missed == ("event: the journal does not answer", "alias champion: the journal does not answer")
    local = late.gateway().in_force("late")
    assert (local.champion.version, local.champion.endpoints) == ("1", (servers["1"],))
    assert read_copy(late.state).desired.champion == "1"
    away()
    # A release that went on elsewhere meanwhile does not undo it, and its process is refused from then on.
    traffic_of(late).apply(Routes(model="late", revision=20, champion=arm("2", servers["2"])))
    GatewayAgent(late.gateway(), late.journal(), host="gateway-1").round()
    assert traffic_of(late).in_force("late") == local
    with pytest.raises(LeaseHeldError):
        traffic_of(late).apply(Routes(model="late", revision=21, champion=arm("2", servers["2"])))
    assert late.gateway().in_force("late") == local
    deployment = HostsDeployment(late)
    [sent] = send_rollbacks(late, deployment, with_rollback)
    assert (sent.version, sent.pending) == ("1", ("event", "alias champion"))
    desired = deployment.read("late")
    assert (desired.champion, desired.rollbacks) == ("1", (sent,))
    assert read_copy(late.state).unsent == ()


def test_on_a_machine_without_a_gateway_nothing_is_said_to_be_rolled_back(late, servers, away):
    with pytest.raises(EngineUnavailableError, match="no gateway runs on this machine"):
        roll_back(late, "late", principal=ADA, reason="complaints", clock=ManualClock(MOMENT + timedelta(seconds=1)))
    away()
    assert traffic_of(late).in_force("late").champion.version == "2"

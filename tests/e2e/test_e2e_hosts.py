"""`cumulant up --role` on machines that share a journal and an object store: they come, leave, and are killed."""

from __future__ import annotations

import pytest
from e2e_hosts import BODY, hosts, until
from e2e_load import Load
from e2e_stack import MODEL

from cumulant.core.traffic import CANDIDATE
from cumulant.flows.ledger.lease import holder_of
from cumulant.flows.release.controller.controller import CONTROLLER
from cumulant.flows.traffic.clients import traffic_of

pytestmark = pytest.mark.slow
PATH = f"/v2/models/{MODEL}/infer"


def test_machines_come_are_killed_and_leave_without_a_failed_request(tmp_path):
    with hosts(tmp_path) as machines:
        first, second, gateway, controller = map(machines.add, ("first", "second", "gateway", "controller"))
        machines.serve("1")
        controller.up("controller")
        first.up("servers")
        second.up("servers")
        gateway.up("gateway")
        until(lambda: machines.endpoints() == {"first", "second"}, why=machines.logs)
        with Load(machines.url, PATH, BODY, rate=50) as load:
            until(lambda: load.answered() > 50, why=machines.logs)

            machines.ensure("2")
            machines.begin("2")
            until(lambda: machines.release.status == "running", why=machines.logs)
            until(lambda: machines.endpoints(CANDIDATE) == {"first", "second"}, why=machines.logs)
            second.kill()
            until(lambda: machines.endpoints(CANDIDATE) == {"first"} == machines.endpoints(), why=machines.logs)
            assert not machines.release.over

            third = machines.add("third")  # an empty folder
            third.up("servers")
            until(
                lambda: machines.endpoints(CANDIDATE) == {"first", "third"} == machines.endpoints(), why=machines.logs
            )
            shown = gateway.run("ps")
            assert {host["host"] for host in shown["hosts"]} == {"first", "third", "gateway", "controller"}
            assert {server["version"] for host in shown["hosts"] for server in host["servers"]} == {"1", "2"}

            assert first.run("down")["ended"] > 0
            assert machines.endpoints() == {"third"}
            other = machines.add("other")
            other.up("controller")
            controller.kill()
            until(
                lambda: holder_of(machines.project.journal(), CONTROLLER.format(model=MODEL)).host.startswith("other:")
            )
            until(lambda: machines.reports().keys() == {"third", "gateway", "other"}, why=machines.logs)

            back = other.run("rollback", MODEL, "--reason", "test")
            assert (back["version"], back["missed"]) == ("1", [])
            until(lambda: machines.release.over, why=machines.logs)
            assert machines.release.status == "rolled_back"
            assert traffic_of(machines.project).in_force(MODEL).candidate is None
            assert machines.deployment.read(MODEL).candidate is None
        # A request that was under way to a killed server ends with it; all that came after it were answered.
        failed = [one for one in load.seen if one.failed]
        assert len(failed) <= 3, failed[:10]

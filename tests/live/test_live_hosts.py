"""Machines of `deploy: hosts://` whose journal is in PostgreSQL, which restarts under load."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from e2e_hosts import BODY, hosts, until
from e2e_load import Load
from e2e_stack import MODEL

from cumulant.flows.traffic.clients import traffic_of
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def server():
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    with postgres_server() as running:
        running.execute("CREATE DATABASE hosts")
        yield running


def test_machines_serve_on_without_the_journal_and_a_rollback_needs_none(server, tmp_path):
    with hosts(tmp_path, server.url("hosts")) as machines:
        front, first, second = map(machines.add, ("front", "first", "second"))
        machines.serve("1")
        front.up("gateway", "controller")
        first.up("servers")
        second.up("servers")
        until(lambda: machines.endpoints() == {"first", "second"}, why=machines.logs)
        until(machines.answers, why=machines.logs)
        with Load(machines.url, f"/v2/models/{MODEL}/infer", BODY, rate=50) as callers:
            machines.ensure("2")
            machines.begin("2")
            until(lambda: machines.release.status == "running", why=machines.logs)
            until(lambda: len(traffic_of(machines.project).in_force(MODEL).arms) == 2, why=machines.logs)
            time.sleep(2)  # two rounds, in which each machine copies what it needs without the journal
            server.stop()
            shown = front.run("ps")  # what runs on the machine is known without the journal
            assert {one["name"] for one in shown["processes"]} >= {"gateway", "controller"}
            assert "does not answer" in shown["hosts_unknown"]
            back = front.run("rollback", MODEL, "--reason", "the reason of the test", codes=(0, 1))
            assert (back["version"], back["later"]) == ("1", True)
            answered = callers.answered()
            until(lambda: callers.answered() > answered + 100, why=machines.logs)
            server.start()
            until(lambda: machines.release.over, why=machines.logs)
            until(lambda: machines.deployment.read(MODEL).candidate is None, why=machines.logs)
            assert machines.release.status == "rolled_back"
            # who rolled back comes from the machine of the rollback, once it reports again
            until(lambda: ", by " in second.run("release", "status")["reason"], why=machines.logs)
            for shown in (second.run("release", "status"), *second.run("release", "history")):
                reason = shown["reason"]
                assert reason.startswith("all requests were sent to version 1 beside the release, by "), reason
                assert reason.endswith(": the reason of the test")
            # the silence of all machines was the journal's: none was taken for lost
            assert {"first", "second"} == machines.endpoints()
            second.kill()
            until(lambda: machines.endpoints() == {"first"}, why=machines.logs)
        failed = [one for one in callers.seen if one.failed]
        assert len(failed) <= 3, failed


def test_machines_end_in_order_while_the_journal_does_not_answer(server, tmp_path):
    with hosts(tmp_path, server.url("hosts")) as machines:
        front, serving = map(machines.add, ("front", "serving"))
        machines.serve("1")
        front.up("gateway", "controller")
        serving.up("servers")
        until(machines.answers, why=machines.logs)
        server.stop("immediate")
        with ThreadPoolExecutor(2) as pool:
            shown = list(pool.map(lambda machine: machine.run("down"), (front, serving)))
        server.start()
        assert [document["ended"] for document in shown] == [4, 2]
        for machine in (front, serving):
            assert machine.processes() == []
            logs = machine.logs()
            assert "the journal does not answer" in logs
            assert "it did not within" not in logs, logs  # none was killed after a wait

"""`cumulant up --role` on machines that share a journal and an object store: they come, leave, and are killed."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from e2e_hosts import BODY, Hosts, hosts, until
from e2e_load import Load
from e2e_stack import MODEL

from cumulant.core.clock import FixedClock, SystemClock
from cumulant.core.traffic import ARM_HEADER, CANDIDATE, CHAMPION
from cumulant.flows.ledger.lease import holder_of
from cumulant.flows.release.controller.controller import CONTROLLER
from cumulant.flows.release.controller.custom_metrics import CustomMetrics
from cumulant.flows.release.controller.evidence import LiveEvidence
from cumulant.flows.release.controller_process import reported_servers
from cumulant.flows.serving.predictions import list_predictions
from cumulant.flows.serving.unlogged_requests import GatewayComparison, compare_with_gateway
from cumulant.flows.traffic.clients import exchanges_of, traffic_of

pytestmark = pytest.mark.slow
PATH = f"/v2/models/{MODEL}/infer"


def load(machines: Hosts) -> Load:
    return Load(machines.url, PATH, BODY, rate=50)


def compare(machines: Hosts) -> GatewayComparison:
    later = FixedClock(datetime.now(UTC) + timedelta(minutes=2))
    compared = compare_with_gateway(machines.project, principal=machines.project.principal(), clock=later)
    assert compared is not None
    return compared


def missing(machines: Hosts) -> int:
    return sum(each.requests for each in compare(machines).unlogged)


def test_a_release_goes_on_when_its_machines_are_killed_and_new_ones_come(tmp_path):
    with hosts(tmp_path) as machines:
        first, second, front, controller = map(machines.add, ("first", "second", "front", "controller"))
        # a machine of servers may come before there is anything to serve, and says what it waits for
        early = first.up("servers")
        assert early["processes"] == []
        assert "no version of graph is to be served yet" in early["notes"][0]
        assert first.run("ps")["notes"] == early["notes"]
        machines.serve("1")
        front.up("gateway", "controller")
        second.up("servers")
        until(lambda: machines.endpoints() == {"first", "second"}, why=machines.logs)
        until(machines.answers, why=machines.logs)
        with load(machines) as callers:
            until(lambda: callers.answered() > 20, why=machines.logs)
            machines.ensure("2")
            machines.begin("2")
            until(lambda: machines.endpoints(CANDIDATE) == {"first", "second"}, why=machines.logs)
            second.kill()
            until(lambda: machines.endpoints(CANDIDATE) == {"first"} == machines.endpoints(), why=machines.logs)
            second.prepare()  # the machine is back, with an empty folder
            second.up("servers")
            both = {"first", "second"}
            until(lambda: machines.endpoints(CANDIDATE) == both == machines.endpoints(), why=machines.logs)
            assert not machines.release.over

            # another controller takes over from one that hangs, and keeps the lease when that one goes on
            controller.up("controller")
            assert holder(machines) == "front"
            shown = controller.run("ps")
            assert {host["host"] for host in shown["hosts"]} == {*both, "front", "controller"}
            assert {server["version"] for host in shown["hosts"] for server in host["servers"]} == {"1", "2"}
            with front.stopped("controller"):
                until(lambda: holder(machines) == "controller", why=machines.logs)
            back = controller.run("rollback", MODEL, "--reason", "test")
            assert (back["version"], back["missed"]) == ("1", [])
            until(lambda: machines.release.over, why=machines.logs)
            assert holder(machines) == "controller"
        assert machines.release.status == "rolled_back"
        assert traffic_of(machines.project).in_force(MODEL).candidate is None
        assert machines.deployment.read(MODEL).candidate is None
        failed = [one for one in callers.seen if one.failed]
        # nothing but the requests that were under way to the killed machine
        assert len(failed) <= 3, failed
        # once all is uploaded, the log lacks nothing that the gateway answered but the last rows of that machine
        answered = callers.answered()
        until(lambda: compare(machines).compared >= answered, why=machines.logs)
        # 25 requests/s since its last upload, which a busy machine makes late; none where that was a moment ago
        until(lambda: missing(machines) < 400, why=machines.logs)


def test_a_lost_machine_is_no_failure_of_the_candidate_and_a_killed_server_is_one(tmp_path):
    with hosts(tmp_path) as machines:
        first, second, front = map(machines.add, ("first", "second", "front"))
        machines.serve("1")
        front.up("gateway", "controller")
        first.up("servers")
        second.up("servers")
        until(lambda: machines.endpoints() == {"first", "second"}, why=machines.logs)
        machines.ensure("2")
        machines.begin("2", first=3)
        with load(machines) as callers:
            until(lambda: weight(machines) == 50, why=machines.logs)
            until(lambda: callers.answered() > 100, why=machines.logs)
            observed = Observed(machines)
            second.kill()
            until(lambda: observed.failures() >= 0 and machines.endpoints(CANDIDATE) == {"first"}, why=machines.logs)
            rescued, unanswered = requests_of_the_candidate(machines)
            assert rescued > 0, "the gateway could not connect to the machine, and sent them elsewhere"
            assert observed.most <= unanswered, f"{rescued} were rescued"
            assert not machines.release.over

            observed = Observed(machines)
            observed.failures()  # a failure is a change since an earlier report
            first.end("server-2")
            until(lambda: observed.failures() > requests_of_the_candidate(machines)[1], why=machines.logs)
        failed = [one for one in callers.seen if one.failed]
        assert len(failed) <= 6, failed


class Observed:
    """What the controller counts of the release as it is now."""

    def __init__(self, machines: Hosts) -> None:
        self.release, self.most = machines.release, 0
        self._evidence = LiveEvidence(
            traffic_of(machines.project),
            exchanges=exchanges_of(machines.project),
            stack=machines.project.state,
            log=machines.project.log(),
            own=CustomMetrics(machines.project.root, print),
            clock=SystemClock(),
            report=print,
            servers=lambda: reported_servers(machines.project),
        )

    def failures(self) -> int:
        """Failures of the candidate in the last seconds."""
        failures = self._evidence.health(self.release).candidate.failures
        self.most = max(self.most, failures)
        return failures


def weight(machines: Hosts) -> float:
    routes = traffic_of(machines.project).in_force(MODEL)
    return 0.0 if routes is None else routes.weight


def requests_of_the_candidate(machines: Hosts) -> tuple[int, int]:
    """Those that the champion answered, and those that no server did."""
    exchanges, _ = exchanges_of(machines.project).exchanges("", limit=1_000_000)
    mine = [exchange for exchange in exchanges if exchange.assigned == CANDIDATE]
    return sum(exchange.rescued for exchange in mine), sum(not exchange.served for exchange in mine)


def test_servers_are_replaced_and_leave_without_a_failed_request(tmp_path):
    with hosts(tmp_path) as machines:
        whole, second = map(machines.add, ("whole", "second"))
        machines.serve("1")
        whole.up("gateway", "servers", "controller")
        second.up("servers")
        until(lambda: machines.endpoints() == {"whole", "second"}, why=machines.logs)
        until(machines.answers, why=machines.logs)
        check_forged_headers(machines)
        with load(machines) as callers:
            until(lambda: callers.answered() > 20, why=machines.logs)
            before = {server.endpoint for report in machines.reports().values() for server in report.servers}
            machines.ensure("1", key="again")
            until(lambda: len(before | routed(machines)) == 4 and not before & routed(machines), why=machines.logs)
            assert machines.endpoints() == {"whole", "second"}
            # refused (code 3) until the servers that were replaced have ended
            until(lambda: second.run("up", "--restart", codes=(0, 3)).get("running"), why=machines.logs)
            assert machines.endpoints() == {"whole", "second"}
            assert second.run("down")["ended"] > 0
            assert machines.endpoints() == {"whole"}
            assert second.run("ps")["running"] is False
        assert [one for one in callers.seen if one.failed] == []


def test_of_two_machines_with_one_name_that_start_at_once_one_is_refused(tmp_path):
    with hosts(tmp_path) as machines:
        twins = [machines.add("one"), machines.add("other")]
        twins[1].name = twins[0].name
        machines.serve("1")
        with ThreadPoolExecutor(2) as pool:
            shown = list(pool.map(lambda twin: twin.run("up", "--detach", "--role", "controller", codes=(0, 3)), twins))
        (refused,) = [document["error"] for document in shown if "error" in document]
        assert refused["error"].startswith("one is the name of another machine or folder of this project")
        assert refused["exit_code"] == 3
        assert [twin.run("ps")["running"] for twin in twins] == ["error" not in document for document in shown]
        assert machines.reports().keys() == {"one"}


def check_forged_headers(machines: Hosts) -> None:
    """A server on any address believes the gateway alone."""
    url = next(url for url in routed(machines) if "//127.0.1." in url)
    forged = urllib.request.Request(f"{url}{PATH}", data=BODY, headers={ARM_HEADER: CANDIDATE})
    with urllib.request.urlopen(forged, timeout=10) as answer:
        assert answer.status == 200
    arms = until(lambda: len(found := arms_in_log(machines)) >= 2 and found, why=machines.logs)
    assert (arms.count(""), set(arms)) == (1, {"", CHAMPION})


def arms_in_log(machines: Hosts) -> list[str]:
    return [row.arm for row in list_predictions(machines.project.log(), limit=1000)]


def routed(machines: Hosts) -> set[str]:
    routes = traffic_of(machines.project).in_force(MODEL)
    return {url for arm in routes.arms for url in arm.endpoints}


def holder(machines: Hosts) -> str:
    process = holder_of(machines.project.journal(), CONTROLLER.format(model=MODEL))
    return "" if process is None else process.host.partition(":")[0]

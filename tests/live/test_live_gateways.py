"""Two machines with Envoy and an agent each, which share a journal on PostgreSQL and nothing else."""

from __future__ import annotations

import shutil
import signal
import time

import msgspec
import pytest
from gateway_machines import GatewayMachine

from cumulant.core.errors import EngineUnavailableError, MissingPartError
from cumulant.core.traffic import CALLER_HEADER, CANDIDATE, CHAMPION
from cumulant.drivers.envoy import engine
from cumulant.drivers.envoy.admin import Admin
from cumulant.drivers.envoy.folder import Folder
from cumulant.flows.traffic.clients import exchanges_of
from cumulant.flows.traffic.rows import LAPSE, list_reports
from cumulant.flows.traffic.shared_traffic import SharedTraffic
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.routes import CALM, MODEL, routes_of
from cumulant.testing.gateways import Caller, load, wait_for
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs

pytestmark = [pytest.mark.live, pytest.mark.slow]
RATED = msgspec.structs.replace(CALM, rate=40)


@pytest.fixture(scope="module")
def server():
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    try:
        engine.find_program()
    except MissingPartError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    with postgres_server() as running:
        yield running


@pytest.fixture
def machines(server, tmp_path, request):
    database = f"gateways_{abs(hash(request.node.name))}"
    server.execute(f"CREATE DATABASE {database}")
    shared = f"journal: '{server.url(database)}', log: 'file://{tmp_path}/log'"
    made = [GatewayMachine(tmp_path, f"gateway-{number}", f"127.0.1.{number}", shared) for number in (1, 2)]
    try:
        for machine in made:
            machine.start()
        wait_for(lambda: len(reports(made[0])) == 2)
        yield made
    finally:
        for machine in made:
            machine.stop()


@pytest.fixture
def arms():
    made = [ArmServer(name).start() for name in (CHAMPION, CANDIDATE)]
    yield made
    for arm in made:
        arm.stop()


def reports(machine):
    """Ready gateways, by machine."""
    return {one.host: one for one in list_reports(machine.project.journal()) if one.ready}


def traffic_by(machine):
    return SharedTraffic(machine.project.journal())


def post(machine, count=1):
    with Caller(machine.url, MODEL) as caller:
        return [caller.post() for _ in range(count)]


def test_no_request_is_lost_while_the_routes_of_both_gateways_change(machines, arms):
    traffic = traffic_by(machines[0])
    champion, candidate = (arm.url for arm in arms)
    traffic.apply(routes_of(champion, revision=1))

    def change():
        for revision in range(2, 52):
            weight = float(revision * 7 % 100)
            traffic.apply(routes_of(champion, candidate if revision % 3 else None, weight=weight, revision=revision))
            for machine in machines:
                assert machine.gateway.in_force(MODEL).revision == revision

    results = []

    def load_both():
        results.append(load(machines[1].url.removeprefix("http://"), MODEL, change, callers=2))

    results.append(load(machines[0].url.removeprefix("http://"), MODEL, load_both, callers=2))
    for answers, faults in results:
        assert faults == []
        assert len(answers) > 50
        assert {answer.status for answer in answers} == {200}
        assert {answer.arm for answer in answers} == {CHAMPION, CANDIDATE}


def test_a_gateway_without_its_agent_turns_unready_and_holds_nothing_up(machines, arms):
    one, other = machines
    traffic = traffic_by(one)
    traffic.apply(routes_of(arms[0].url, revision=1))
    assert [machine.probe() for machine in machines] == [200, 200]
    assert [machine.callers_probe() for machine in machines] == [200, 200]
    other.send("agent", signal.SIGSTOP)
    traffic.apply(routes_of(arms[0].url, arms[1].url, weight=100.0, revision=2))
    assert other.probe() == 503, "it had turned unready when it was no longer waited for"
    assert (other.callers_probe(), other.probe("/health")) == (503, 200)
    assert [one.probe(), one.gateway.in_force(MODEL).revision] == [200, 2]
    assert {answer.arm for answer in post(other, 3)} == {CHAMPION}, "it serves by the routes that it knows"
    assert reports(one).keys() == {"gateway-1"}
    other.send("agent", signal.SIGCONT)
    wait_for(lambda: other.gateway.in_force(MODEL).revision == 2 and other.probe() == 200)
    wait_for(lambda: traffic.lagging(MODEL) == [])  # its next report says so


def test_a_gateway_without_routes_is_not_ready_and_says_why(machines, arms):
    assert [machine.probe() for machine in machines] == [503, 503]
    assert [machine.reason() for machine in machines] == ["the gateway has no routes yet\n"] * 2
    assert [machine.probe("/health") for machine in machines] == [200, 200]
    traffic_by(machines[0]).apply(routes_of(arms[0].url, revision=1))
    assert [machine.probe() for machine in machines] == [200, 200]


def test_two_gateways_share_the_rate_and_the_one_that_is_left_has_all_of_it(machines, arms):
    one, lost = machines
    traffic_by(one).apply(routes_of(arms[0].url, revision=1, limits=RATED))
    wait_for(lambda: [bucket(machine) for machine in machines] == [20, 20])
    began, statuses = time.monotonic(), []
    for machine in machines:
        statuses += [answer.status for answer in post(machine, 60)]
    assert set(statuses) == {200, 429}
    assert 40 <= statuses.count(200) <= 42 + 40 * (time.monotonic() - began)
    lost.kill("gateway")
    wait_for(lambda: bucket(one) == 40)
    assert [answer.status for answer in post(one, 60)].count(200) >= 40
    lost.start_gateway()
    wait_for(lambda: [bucket(machine) for machine in machines] == [20, 20])


def bucket(machine):
    """How many requests at once the rate lets through, as Envoy has it."""
    gateway = Folder.at(machine.project.endpoints.traffic).gateway()
    (host,) = Admin(gateway.socket).table()[1]["virtual_hosts"] if gateway else [{"routes": []}]
    limits = [
        filters["token_bucket"]["max_tokens"]
        for route in host["routes"]
        for filters in route.get("typed_per_filter_config", {}).values()
        if "token_bucket" in filters
    ]
    return limits[0] if limits else None


def test_a_lost_machine_is_waited_for_until_its_report_lapses(machines, arms):
    one, lost = machines
    traffic = traffic_by(one)
    traffic.apply(routes_of(arms[0].url, revision=1, limits=RATED))
    for what in ("agent", "gateway"):
        lost.kill(what)
    shutil.rmtree(lost.folder)
    traffic.apply(routes_of(arms[0].url, revision=2, limits=RATED))
    wait_for(lambda: bucket(one) == 40)  # its share of the rate is back
    assert one.gateway.in_force(MODEL).revision == 2
    assert reports(one).keys() == {"gateway-1"}
    assert {answer.status for answer in post(one, 3)} == {200}


def test_a_killed_gateway_and_a_killed_agent_come_back_with_the_routes(machines, arms):
    one, other = machines
    traffic = traffic_by(one)
    traffic.apply(routes_of(arms[0].url, revision=1))
    other.kill("gateway")
    wait_for(lambda: reports(one).keys() == {"gateway-1"})
    traffic.apply(routes_of(arms[0].url, arms[1].url, weight=100.0, revision=2))
    other.kill("agent")
    other.start_gateway()
    assert {answer.arm for answer in post(other, 3)} <= {CHAMPION, CANDIDATE}
    other.start_agent()
    wait_for(lambda: other.probe() == 200)
    assert {answer.arm for answer in post(other, 3)} == {CANDIDATE}


def test_without_the_journal_a_gateway_starts_from_its_copy_and_takes_a_rollback(machines, arms, server):
    one, other = machines
    champion, candidate = (arm.url for arm in arms)
    traffic = traffic_by(one)
    traffic.apply(routes_of(champion, candidate, weight=100.0, revision=1))
    server.stop("immediate")
    try:
        for what in ("agent", "gateway"):
            other.kill(what)
        other.start()
        assert {answer.arm for answer in post(other, 3)} == {CANDIDATE}, "it started from the copy on its machine"
        with pytest.raises(EngineUnavailableError):
            traffic.in_force(MODEL)
        present = other.gateway.in_force(MODEL)
        other.gateway.apply(present.all_to(present.champion, revision=present.revision + 1))
        assert {answer.arm for answer in post(other, 3)} == {CHAMPION}
        wait_for(lambda: [machine.probe() for machine in machines] == [503, 503], within=LAPSE + 30)
        assert [machine.probe("/health") for machine in machines] == [200, 200]
        assert {answer.status for answer in post(one, 3)} == {200}
    finally:
        server.start()
    wait_for(lambda: [machine.probe() for machine in machines] == [200, 200], within=120)
    wait_for(lambda: one.gateway.in_force(MODEL).revision == 2)
    assert {answer.arm for answer in post(one, 3)} == {CHAMPION}
    assert traffic.in_force(MODEL) == other.gateway.in_force(MODEL)


def test_each_exchange_is_in_the_log_once_though_agents_and_gateways_are_killed(machines, arms):
    traffic_by(machines[0]).apply(routes_of(*(arm.url for arm in arms), weight=50.0, revision=1))
    names = []

    def answer(count):
        for machine in machines:
            with Caller(machine.url, MODEL) as caller:
                for _ in range(count):
                    names.append(f"{machine.name}-{len(names)}")
                    assert caller.post(headers={CALLER_HEADER: names[-1]}).status == 200

    def logged():
        exchanges, _ = exchanges_of(machines[0].project).exchanges()
        return [one.caller_id for one in exchanges if one.caller_id]

    for machine in machines:
        answer(20)
        for pause in (0.0, 0.7, 1.4):  # moments of an upload, which is every two seconds
            time.sleep(pause)
            machine.kill("agent")
            answer(5)
            machine.start_agent()
        wait_for(lambda machine=machine: has_all(machine, names))
        machine.kill("gateway")
        machine.start_gateway()
        wait_for(lambda machine=machine: machine.probe() == 200)
    wait_for(lambda: len(logged()) >= len(names))
    assert sorted(logged()) == sorted(names)
    arm_of = {one.caller_id: one.assigned for one in exchanges_of(machines[0].project).exchanges()[0]}
    assert {CHAMPION, CANDIDATE} == {arm_of[name] for name in names}


def has_all(machine, names):
    """Whether what a machine's gateway answered is in its folder: Envoy writes its lines within 50 ms."""
    exchanges, _ = machine.gateway.exchanges()
    return {one.caller_id for one in exchanges} >= {name for name in names if name.startswith(machine.name)}

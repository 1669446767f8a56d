"""Rules of a gateway that changes, ends and starts again."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from cumulant.core.errors import LeaseHeldError
from cumulant.core.network.http_client import HttpClient
from cumulant.core.traffic import (
    CALLER_HEADER,
    CANDIDATE,
    CHAMPION,
)
from cumulant.ports.traffic import Gateway, ListenOptions
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.gateway import GatewaySuite
from cumulant.testing.conformance.routes import MODEL, routes_of
from cumulant.testing.gateways import Caller, GatewayAnswer, GatewayProcess, Reader, load, wait_for


class LifeRules(GatewaySuite):
    """Changes under load, kills and restarts, drains."""

    def test_a_gateway_without_routes_is_not_ready(
        self, traffic: Gateway, gateway: GatewayProcess, champion: ArmServer
    ) -> None:
        address = traffic.address()
        assert address is not None
        probe = HttpClient(seconds=30.0).get
        answer = probe(f"{address.admin}/ready")
        assert (answer.status, answer.body) == (503, b"the gateway has no routes yet\n")
        assert probe(f"{address.admin}/health").status == 200
        traffic.apply(routes_of(champion.url))
        assert probe(f"{address.admin}/ready").status == 200
        gateway.kill()
        again = gateway.start()
        assert probe(f"{again.admin}/ready").status == 200

    @pytest.mark.usefixtures("gateway")
    def test_changes_under_load_lose_nothing(
        self, traffic: Gateway, opening: ListenOptions, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0, revision=1))
        answers, faults = load(opening.http, MODEL, lambda: self._change(traffic, champion, candidate))
        assert faults == []
        assert {answer.status for answer in answers} == {200}
        assert {answer.arm for answer in answers} == {CHAMPION, CANDIDATE}
        exchanges = Reader(traffic).until(len(answers))
        assert {(exchange.status, exchange.fault, exchange.rescued) for exchange in exchanges} == {(200, "", False)}

    def _change(self, traffic: Gateway, champion: ArmServer, candidate: ArmServer) -> None:
        for revision in range(2, 12):
            traffic.apply(routes_of(champion.url, candidate.url, weight=revision * 5.0, revision=revision))
        traffic.apply(routes_of(candidate.url, revision=12))
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0, revision=13))

    def test_applied_routes_are_read_after_a_restart(
        self,
        traffic: Gateway,
        connect: Callable[[], Gateway],
        gateway: GatewayProcess,
        champion: ArmServer,
        caller: Caller,
    ) -> None:
        routes = routes_of(champion.url, champion.url, weight=33.0, revision=4, key="card")
        traffic.apply(routes)
        assert connect().in_force(MODEL) == routes
        with pytest.raises(LeaseHeldError):
            traffic.apply(routes_of(champion.url, revision=3))
        gateway.kill()
        assert traffic.address() is None
        assert traffic.in_force(MODEL) == routes
        gateway.start()
        assert traffic.in_force(MODEL) == routes
        caller.close()
        assert caller.post().status == 200

    def test_routes_are_applied_while_the_gateway_is_down(
        self, traffic: Gateway, gateway: GatewayProcess, champion: ArmServer, candidate: ArmServer, caller: Caller
    ) -> None:
        traffic.apply(routes_of(champion.url, revision=1))
        assert caller.post().served_by == CHAMPION
        gateway.kill()
        caller.close()
        traffic.apply(routes_of(candidate.url, revision=2))
        with pytest.raises(LeaseHeldError):
            traffic.apply(routes_of(champion.url, revision=1))
        gateway.start()
        routes = traffic.in_force(MODEL)
        assert routes is not None
        assert routes.revision == 2
        assert caller.post().served_by == CANDIDATE

    def test_each_exchange_is_read_once(
        self,
        traffic: Gateway,
        connect: Callable[[], Gateway],
        gateway: GatewayProcess,
        champion: ArmServer,
        caller: Caller,
    ) -> None:
        traffic.apply(routes_of(champion.url))
        names = [f"r{number}" for number in range(120)]
        reader = Reader(traffic)
        for number, name in enumerate(names, 1):
            assert caller.post(headers={CALLER_HEADER: name}).status == 200
            if number % 40 == 0:
                reader.until(number)
                gateway.kill()
                caller.close()
                gateway.start()
            elif number % 7 == 0:
                reader.read(limit=3)
        assert [exchange.caller_id for exchange in reader.until(120)] == names
        again = Reader(connect())
        while again.read(limit=50):
            pass
        assert [exchange.caller_id for exchange in again.exchanges] == names
        assert traffic.exchanges(reader.cursor)[0] == []

    @pytest.mark.usefixtures("gateway")
    def test_active_falls_to_0(
        self, traffic: Gateway, opening: ListenOptions, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, revision=1))
        candidate.delay = 2.0
        answers: list[GatewayAnswer] = []

        def call() -> None:
            with Caller(f"http://{opening.http}", MODEL) as caller:
                answers.append(caller.post())

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: traffic.active(MODEL, CANDIDATE) == 3)
        traffic.apply(routes_of(champion.url, revision=2))
        assert traffic.active(MODEL, CHAMPION) == 0
        wait_for(lambda: traffic.active(MODEL, CANDIDATE) == 0)
        for thread in threads:
            thread.join()
        assert [(answer.status, answer.served_by) for answer in answers] == [(200, CANDIDATE)] * 3

    @pytest.mark.usefixtures("gateway")
    def test_health(self, traffic: Gateway, champion: ArmServer, candidate: ArmServer) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=10.0))

        def ready() -> dict[str, bool]:
            return {health.arm: health.ready for health in traffic.health(MODEL)}

        wait_for(lambda: ready() == {CHAMPION: True, CANDIDATE: True})
        assert {health.url for health in traffic.health(MODEL)} == {champion.url, candidate.url}
        candidate.stop()
        wait_for(lambda: ready() == {CHAMPION: True, CANDIDATE: False})
        candidate.start()
        wait_for(lambda: ready() == {CHAMPION: True, CANDIDATE: True})

    def test_the_end_drains(
        self, traffic: Gateway, gateway: GatewayProcess, opening: ListenOptions, champion: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url))
        champion.delay = 1.5
        answers: list[GatewayAnswer] = []

        def call() -> None:
            with Caller(f"http://{opening.http}", MODEL) as caller:
                answers.append(caller.post())

        thread = threading.Thread(target=call)
        thread.start()
        wait_for(champion.posts)
        assert gateway.end() == 0
        thread.join()
        assert [answer.status for answer in answers] == [200]
        assert traffic.address() is None
        assert [exchange.status for exchange in Reader(traffic).until(1)] == [200]

    def test_metrics(self, traffic: Gateway, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url))
        assert caller.post().status == 200
        address = traffic.address()
        assert address is not None
        admin = urlsplit(address.admin)
        connection = http.client.HTTPConnection(admin.hostname or "", admin.port, timeout=30)
        connection.request("GET", "/metrics")
        got = connection.getresponse()
        text = got.read().decode()
        connection.close()
        assert got.status == 200
        assert "# TYPE " in text

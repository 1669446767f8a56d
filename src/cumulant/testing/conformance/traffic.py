"""Rules of the port `traffic`.

`RoutesConformance` holds for every client, fakes too. `TrafficConformance` starts the gateway, with small model
servers behind it, and kills both.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from cumulant.core.errors import LeaseHeldError
from cumulant.core.traffic import (
    ARM_HEADER,
    CANDIDATE,
    CHAMPION,
    FORCE_HEADER,
    KEY_HEADER,
    REQUEST_HEADER,
    SHADOW_HEADER,
    Arm,
    Limits,
    Routes,
)
from cumulant.ports.traffic import Opening, Traffic
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.gaps import Suite
from cumulant.testing.gateways import Answer, Caller, Gateway, Reader, running, wait_for

MODEL = "flight-late"
CALM = Limits(deadline=30.0, health_every=0.1, eject_for=0.2)


def routes_of(
    champion: str,
    candidate: str | None = None,
    *,
    weight: float = 0.0,
    revision: int = 1,
    mirror: float = 0.0,
    key: str | None = None,
    limits: Limits = CALM,
) -> Routes:
    """Routes to two base URLs."""
    second = Arm(name="candidate", version="2", endpoints=(candidate,)) if candidate else None
    return Routes(
        model=MODEL,
        revision=revision,
        champion=Arm(name="champion", version="1", endpoints=(champion,)),
        candidate=second,
        weight=weight,
        mirror=mirror,
        key=key,
        limits=limits,
    )


class RoutesConformance(Suite):
    """Give a fixture `connect`: makes a client, each time of the same gateway, which does not run."""

    @pytest.fixture
    def connect(self) -> Callable[[], Traffic]:
        raise NotImplementedError

    def test_routes_are_read_as_they_were_applied(self, connect: Callable[[], Traffic]) -> None:
        routes = routes_of("http://127.0.0.1:1", "http://127.0.0.1:2", weight=12.5, mirror=100.0, key="card")
        traffic = connect()
        assert traffic.in_force(MODEL) is None
        traffic.apply(routes)
        traffic.apply(msgspec.structs.replace(routes, model="other", weight=0.0))
        assert traffic.in_force(MODEL) == routes
        assert connect().in_force(MODEL) == routes
        assert traffic.in_force("nope") is None

    def test_a_lower_revision_is_refused(self, connect: Callable[[], Traffic]) -> None:
        traffic, other = connect(), connect()
        traffic.apply(routes_of("http://127.0.0.1:1", revision=7))
        with pytest.raises(LeaseHeldError, match="7"):
            other.apply(routes_of("http://127.0.0.1:2", revision=6))
        other.apply(routes_of("http://127.0.0.1:1", revision=7))
        other.apply(routes_of("http://127.0.0.1:3", revision=9))
        found = traffic.in_force(MODEL)
        assert found is not None
        assert (found.revision, found.champion.endpoints) == (9, ("http://127.0.0.1:3",))

    def test_of_many_writers_the_highest_revision_stays(self, connect: Callable[[], Traffic]) -> None:
        def write(first: int) -> None:
            traffic = connect()
            for revision in range(first, 60, 3):
                with contextlib.suppress(LeaseHeldError):
                    traffic.apply(routes_of(f"http://127.0.0.1:{revision + 1}", revision=revision))

        threads = [threading.Thread(target=write, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert connect().in_force(MODEL) == routes_of("http://127.0.0.1:60", revision=59)

    def test_what_is_not_there(self, connect: Callable[[], Traffic]) -> None:
        traffic = connect()
        assert traffic.door() is None
        assert list(traffic.health(MODEL)) == []
        assert traffic.active(MODEL, CHAMPION) == 0
        assert traffic.exchanges()[0] == []
        traffic.close()
        traffic.close()


class TrafficConformance(RoutesConformance):
    """Gateways that run, as the driver's `program` says."""

    #: a request that hangs ends this soon after its deadline (seconds), however busy the machine
    slack = 5.0

    @pytest.fixture
    def traffic(self, connect: Callable[[], Traffic]) -> Iterator[Traffic]:
        client = connect()
        yield client
        client.close()

    @pytest.fixture
    def opening(self, tmp_path: Path) -> Opening:
        key_file = tmp_path / "log.key"
        key_file.write_bytes(b"k" * 32)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return Opening(http=f"127.0.0.1:{port}", key_file=str(key_file))

    @pytest.fixture
    def gateway(self, traffic: Traffic, opening: Opening, tmp_path: Path) -> Iterator[Gateway]:
        with (tmp_path / "gateway.out").open("wb") as output, running(traffic, opening, output) as gateway:
            yield gateway

    @pytest.fixture
    def champion(self) -> Iterator[ArmServer]:
        arm = ArmServer(CHAMPION).start()
        yield arm
        arm.stop()

    @pytest.fixture
    def candidate(self) -> Iterator[ArmServer]:
        arm = ArmServer(CANDIDATE).start()
        yield arm
        arm.stop()

    @pytest.fixture
    def caller(self, gateway: Gateway) -> Iterator[Caller]:
        with Caller(gateway.url, MODEL) as caller:
            yield caller

    def test_the_door_and_one_request(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, opening: Opening
    ) -> None:
        began = int(time.time() * 1e6)
        traffic.apply(routes_of(champion.url, revision=3))
        door = traffic.door()
        assert door is not None
        assert door.url == f"http://{opening.http}"
        answer = caller.post(headers={REQUEST_HEADER: "one"})
        assert (answer.status, answer.served_by, answer.arm) == (200, CHAMPION, CHAMPION)
        [sent] = champion.posts()
        assert (sent.headers[REQUEST_HEADER], sent.headers[ARM_HEADER]) == ("one", CHAMPION)
        assert sent.body == b'{"x": 1.0}'
        [told] = Reader(traffic).until(1)
        assert (told.request, told.model, told.assigned, told.served) == ("one", MODEL, CHAMPION, CHAMPION)
        assert (told.status, told.fault, told.forced, told.revision, told.key) == (200, "", False, 3, "")
        assert began <= told.time <= time.time() * 1e6 + 1e6
        assert 0 < told.duration_us < 30e6
        assert not told.rescued

    def test_a_request_without_a_name_gets_one(self, traffic: Traffic, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url))
        assert caller.post().status == caller.post().status == 200
        names = [sent.headers[REQUEST_HEADER] for sent in champion.posts()]
        assert len(set(names)) == 2
        assert [told.request for told in Reader(traffic).until(2)] == names

    def test_weights(self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=20.0))
        answers = [caller.post() for _ in range(600)]
        assert {answer.status for answer in answers} == {200}
        found = sum(answer.served_by == CANDIDATE for answer in answers)
        assert abs(found - 120) < 4.5 * math.sqrt(600 * 0.2 * 0.8)
        assert all(answer.arm == answer.served_by for answer in answers)
        told = Reader(traffic).until(600)
        assert sum(exchange.assigned == CANDIDATE for exchange in told) == found

    @pytest.mark.parametrize("weight", [0.0, 100.0])
    def test_all_or_nothing(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer, weight: float
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=weight))
        arms = {caller.post().served_by for _ in range(100)}
        assert arms == {CANDIDATE if weight else CHAMPION}

    def test_a_ramp_moves_keys_in_one_direction(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        keys = [f"card-{number}" for number in range(1000)]
        before: set[str] = set()
        for revision, weight in enumerate((10.0, 50.0, 95.0), 1):
            traffic.apply(routes_of(champion.url, candidate.url, weight=weight, revision=revision, key="card"))
            arms = {key: caller.post(headers={KEY_HEADER: key}).arm for key in keys}
            moved = {key for key, arm in arms.items() if arm == CANDIDATE}
            share = weight / 100
            assert abs(len(moved) - 1000 * share) < 4.5 * math.sqrt(1000 * share * (1 - share))
            assert before <= moved
            assert {caller.post(headers={KEY_HEADER: key}).arm for key in sorted(moved)[:20]} == {CANDIDATE}
            before = moved

    def test_the_key_is_found_in_the_body(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0, key="card"))
        path = f"/v2/models/{MODEL}/infer"
        for number in range(40):
            key = f'c{number} "ä\\'
            tensor = {"name": "card", "shape": [1], "datatype": "BYTES", "data": [key]}
            other = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[number, 1.5e3]]}
            answers = [
                caller.post({"x": [{"card": "no"}], "card": key}),
                caller.post({"rows": [{"note": 'a "card": 1 }', "card": key}, {"card": "another"}]}),
                caller.post([{"card": key}]),
                caller.post({"id": "card", "inputs": [other, tensor]}, path=path),
                caller.post({"inputs": [{**tensor, "data": [[key]]}, other]}, path=path),
            ]
            assert len({answer.arm for answer in answers}) == 1, key
        told = Reader(traffic).until(200)
        assert len({exchange.key for exchange in told}) == 40
        assert {exchange.assigned for exchange in told} == {CHAMPION, CANDIDATE}
        assert all(exchange.key and not exchange.key.startswith("c") for exchange in told)

    @pytest.mark.parametrize("body", [{}, [], {"card": None}, {"rows": []}, {"inputs": [{"name": "card"}]}, 7, "card"])
    def test_a_body_without_the_key_is_answered(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, body: object
    ) -> None:
        traffic.apply(routes_of(champion.url, champion.url, weight=50.0, key="card"))
        assert caller.post(body).status == 200
        assert [exchange.key for exchange in Reader(traffic).until(1)] == [""]

    def test_a_forced_arm_is_told_as_forced(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0))
        assert caller.post(headers={FORCE_HEADER: CANDIDATE}).served_by == CANDIDATE
        assert caller.post(headers={FORCE_HEADER: CHAMPION}).served_by == CHAMPION
        assert caller.post(headers={FORCE_HEADER: "nobody"}).served_by == CHAMPION
        told = [(exchange.assigned, exchange.forced) for exchange in Reader(traffic).until(3)]
        assert told == [(CANDIDATE, True), (CHAMPION, True), (CHAMPION, False)]

    def test_mirrored_copies_are_marked_and_never_returned_nor_told(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, mirror=100.0))
        candidate.delay, candidate.status = 0.05, 500
        answers = [caller.post(headers={REQUEST_HEADER: f"r{number}"}) for number in range(50)]
        assert {(answer.status, answer.served_by) for answer in answers} == {(200, CHAMPION)}
        wait_for(lambda: len(candidate.posts(shadow=True)) == 50)
        assert candidate.posts() == champion.posts(shadow=True) == []
        copies = {sent.headers[REQUEST_HEADER]: sent.body for sent in candidate.posts(shadow=True)}
        assert copies == {sent.headers[REQUEST_HEADER]: sent.body for sent in champion.posts()}
        assert {exchange.served for exchange in Reader(traffic).until(50)} == {CHAMPION}

    def test_only_the_champions_requests_are_mirrored_and_in_part(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0, mirror=50.0))
        for _ in range(400):
            assert caller.post().status == 200
        time.sleep(0.5)
        own, copies, of_champion = candidate.posts(), candidate.posts(shadow=True), champion.posts()
        assert len(own) + len(of_champion) == 400
        assert {sent.headers[REQUEST_HEADER] for sent in copies} <= {s.headers[REQUEST_HEADER] for s in of_champion}
        assert abs(len(copies) - len(of_champion) / 2) < 4.5 * math.sqrt(len(of_champion) / 4)

    def test_a_mirror_that_hangs_or_is_dead_delays_nobody(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, mirror=100.0))
        candidate.delay = 20.0
        began = time.monotonic()
        assert [caller.post().status for _ in range(20)] == [200] * 20
        candidate.stop()
        assert [caller.post().status for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 10.0

    @pytest.mark.parametrize("dead", [CHAMPION, CANDIDATE])
    def test_a_killed_arm_loses_no_request_and_is_told_as_rescued(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer, dead: str
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0))
        assert {caller.post().status for _ in range(50)} == {200}
        victim, other = (champion, CANDIDATE) if dead == CHAMPION else (candidate, CHAMPION)
        victim.stop()
        time.sleep(0.1)
        assert {(a.status, a.served_by) for a in (caller.post() for _ in range(100))} == {(200, other)}
        told = Reader(traffic).until(150)[50:]
        rescued = [exchange for exchange in told if exchange.rescued]
        assert {exchange.assigned for exchange in rescued} == {dead}
        assert 20 < len(rescued) < 80
        assert len(rescued) == sum(exchange.assigned == dead for exchange in told)
        victim.start()
        wait_for(lambda: caller.post(headers={FORCE_HEADER: dead}).status == 200)
        wait_for(lambda: {caller.post().served_by for _ in range(20)} == {CHAMPION, CANDIDATE})

    def test_an_arm_that_hangs_is_a_timeout(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        hasty = msgspec.structs.replace(CALM, deadline=0.5, eject_after=1000)
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, limits=hasty))
        candidate.delay = 3.0
        began = time.monotonic()
        answer = caller.post()
        assert 0.4 < time.monotonic() - began < 0.5 + self.slack
        assert (answer.status, answer.arm) == (504, CANDIDATE)
        [told] = Reader(traffic).until(1)
        assert (told.assigned, told.served, told.status, told.fault) == (CANDIDATE, "", 504, "timeout")
        assert told.duration_us >= 400_000
        assert (len(champion.posts()), len(candidate.posts())) == (0, 1)

    def test_no_arm_alive_is_told(self, traffic: Traffic, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url))
        champion.stop()
        time.sleep(0.1)
        answer = caller.post()
        assert (answer.status, answer.arm) == (503, CHAMPION)
        [told] = Reader(traffic).until(1)
        assert (told.assigned, told.served, told.status) == (CHAMPION, "", 503)
        assert told.fault in {"connect", "reset"}

    def test_errors_of_a_server_pass_and_are_not_tried_again(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        patient = msgspec.structs.replace(CALM, eject_after=1000)
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, limits=patient))
        for status in (500, 503, 422):
            candidate.status = status
            assert (caller.post().status, champion.posts()) == (status, [])
        told = Reader(traffic).until(3)
        assert [(exchange.status, exchange.served, exchange.fault) for exchange in told] == [
            (500, CANDIDATE, ""),
            (503, CANDIDATE, ""),
            (422, CANDIDATE, ""),
        ]

    def test_the_rate_is_limited(self, traffic: Traffic, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url, limits=msgspec.structs.replace(CALM, rate=5)))
        answers = [caller.post().status for _ in range(60)]
        refused = answers.count(429)
        assert refused > 0
        assert answers.count(200) == 60 - refused >= 5
        told = Reader(traffic).until(60)
        assert sum(exchange.fault == "rate" for exchange in told) == refused
        assert {exchange.assigned for exchange in told if exchange.status == 200} == {CHAMPION}

    def test_headers_of_callers_are_not_trusted(
        self, traffic: Traffic, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0))
        answer = caller.post(headers={ARM_HEADER: CANDIDATE, SHADOW_HEADER: "1", KEY_HEADER: "k" * 2000})
        assert (answer.status, answer.arm, answer.served_by) == (200, CHAMPION, CHAMPION)
        [sent] = champion.posts()
        assert (sent.headers[ARM_HEADER], SHADOW_HEADER in sent.headers) == (CHAMPION, False)
        hasty = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "9", "x-envoy-retry-on": "5xx"}
        champion.delay, champion.status = 0.1, 500
        assert caller.post(headers=hasty).status == 500
        assert len(champion.posts()) == 2

    @pytest.mark.usefixtures("gateway")
    def test_lines_within_headers_and_huge_headers_are_refused(
        self, traffic: Traffic, opening: Opening, champion: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url))
        where = urlsplit(f"http://{opening.http}")

        def raw(lines: bytes) -> bytes:
            with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as sent:
                head = b"POST /v1/models/flight-late/predict HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
                sent.sendall(head + lines + b"content-length: 2\r\n\r\n{}")
                return sent.recv(4096).split(b"\r\n")[0]

        assert b" 200 " in raw(b"cumulant-key: plain\r\n")
        raw(b"cumulant-key: a\rcumulant-arm: candidate\r\n")
        assert raw(b"cumulant-key: a\x00b\r\n").split()[1:2] != [b"200"]
        assert raw(b"cumulant-key: " + b"k" * 200_000 + b"\r\n").split()[1:2] != [b"200"]
        assert b" 200 " in raw(b"cumulant-key: again\r\n")
        assert {sent.headers[ARM_HEADER] for sent in champion.posts()} == {CHAMPION}
        assert len(champion.posts()) in {2, 3}, "a lone carriage return may be refused or taken out, never end a line"
        Reader(traffic).read()

    @pytest.mark.usefixtures("gateway")
    def test_changes_under_load_lose_nothing(
        self, traffic: Traffic, opening: Opening, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0, revision=1))
        answers, faults = _load(opening, lambda: self._change(traffic, champion, candidate))
        assert faults == []
        assert {answer.status for answer in answers} == {200}
        assert {answer.arm for answer in answers} == {CHAMPION, CANDIDATE}
        told = Reader(traffic).until(len(answers))
        assert {(exchange.status, exchange.fault, exchange.rescued) for exchange in told} == {(200, "", False)}

    def _change(self, traffic: Traffic, champion: ArmServer, candidate: ArmServer) -> None:
        for revision in range(2, 12):
            traffic.apply(routes_of(champion.url, candidate.url, weight=revision * 5.0, revision=revision))
        traffic.apply(routes_of(candidate.url, revision=12))
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0, revision=13))

    def test_what_is_in_force_is_read_back_also_after_a_restart(
        self, traffic: Traffic, connect: Callable[[], Traffic], gateway: Gateway, champion: ArmServer, caller: Caller
    ) -> None:
        routes = routes_of(champion.url, champion.url, weight=33.0, revision=4, key="card")
        traffic.apply(routes)
        assert connect().in_force(MODEL) == routes
        with pytest.raises(LeaseHeldError):
            traffic.apply(routes_of(champion.url, revision=3))
        gateway.kill()
        assert traffic.door() is None
        assert traffic.in_force(MODEL) == routes
        gateway.start()
        assert traffic.in_force(MODEL) == routes
        caller.close()
        assert caller.post().status == 200

    def test_routes_are_applied_while_the_gateway_is_down(
        self, traffic: Traffic, gateway: Gateway, champion: ArmServer, candidate: ArmServer, caller: Caller
    ) -> None:
        traffic.apply(routes_of(champion.url, revision=1))
        assert caller.post().served_by == CHAMPION
        gateway.kill()
        caller.close()
        traffic.apply(routes_of(candidate.url, revision=2))
        with pytest.raises(LeaseHeldError):
            traffic.apply(routes_of(champion.url, revision=1))
        gateway.start()
        found = traffic.in_force(MODEL)
        assert found is not None
        assert found.revision == 2
        assert caller.post().served_by == CANDIDATE

    def test_each_exchange_is_told_once(
        self, traffic: Traffic, connect: Callable[[], Traffic], gateway: Gateway, champion: ArmServer, caller: Caller
    ) -> None:
        traffic.apply(routes_of(champion.url))
        names = [f"r{number}" for number in range(120)]
        reader = Reader(traffic)
        for number, name in enumerate(names, 1):
            assert caller.post(headers={REQUEST_HEADER: name}).status == 200
            if number % 40 == 0:
                reader.until(number)
                gateway.kill()
                caller.close()
                gateway.start()
            elif number % 7 == 0:
                reader.read(limit=3)
        assert [exchange.request for exchange in reader.until(120)] == names
        again = Reader(connect())
        while again.read(limit=50):
            pass
        assert [exchange.request for exchange in again.told] == names
        assert traffic.exchanges(reader.cursor)[0] == []

    @pytest.mark.usefixtures("gateway")
    def test_active_goes_to_0(
        self, traffic: Traffic, opening: Opening, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, revision=1))
        candidate.delay = 2.0
        answers: list[Answer] = []

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
    def test_health(self, traffic: Traffic, champion: ArmServer, candidate: ArmServer) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=10.0))

        def ready() -> dict[str, bool]:
            return {health.arm: health.ready for health in traffic.health(MODEL)}

        wait_for(lambda: ready() == {CHAMPION: True, CANDIDATE: True})
        assert {health.url for health in traffic.health(MODEL)} == {champion.url, candidate.url}
        candidate.stop()
        wait_for(lambda: ready() == {CHAMPION: True, CANDIDATE: False})
        candidate.start()
        wait_for(lambda: ready() == {CHAMPION: True, CANDIDATE: True})

    def test_the_end_drains(self, traffic: Traffic, gateway: Gateway, opening: Opening, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url))
        champion.delay = 1.5
        answers: list[Answer] = []

        def call() -> None:
            with Caller(f"http://{opening.http}", MODEL) as caller:
                answers.append(caller.post())

        thread = threading.Thread(target=call)
        thread.start()
        wait_for(champion.posts)
        assert gateway.end() == 0
        thread.join()
        assert [answer.status for answer in answers] == [200]
        assert traffic.door() is None
        assert [exchange.status for exchange in Reader(traffic).until(1)] == [200]

    def test_metrics(self, traffic: Traffic, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url))
        assert caller.post().status == 200
        door = traffic.door()
        assert door is not None
        admin = urlsplit(door.admin)
        connection = http.client.HTTPConnection(admin.hostname or "", admin.port, timeout=30)
        connection.request("GET", "/metrics")
        got = connection.getresponse()
        text = got.read().decode()
        connection.close()
        assert got.status == 200
        assert "# TYPE " in text


def _load(opening: Opening, change: Callable[[], None]) -> tuple[list[Answer], list[BaseException]]:
    """What 4 callers got while `change` ran, and what they did not get."""
    answers: list[Answer] = []
    faults: list[BaseException] = []
    done = threading.Event()

    def call() -> None:
        with Caller(f"http://{opening.http}", MODEL) as caller:
            while not done.is_set():
                try:
                    answers.append(caller.post())
                except (OSError, http.client.HTTPException) as error:
                    faults.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        change()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return answers, faults

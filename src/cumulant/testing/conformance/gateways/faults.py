"""Rules of a gateway whose servers and callers do wrong."""

from __future__ import annotations

import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from cumulant.core.traffic import (
    ARM_HEADER,
    CALLER_HEADER,
    CANDIDATE,
    CHAMPION,
    FORCE_HEADER,
    KEY_HEADER,
    REQUEST_HEADER,
    SHADOW_HEADER,
)
from cumulant.ports.traffic import Gateway, ListenOptions
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.gateway import GatewaySuite
from cumulant.testing.conformance.routes import CALM, MODEL, routes_of
from cumulant.testing.gateways import Caller, Reader, load, wait_for

#: a request that hangs ends this soon after its deadline (seconds), however busy the machine
_SLACK = 5.0


class Passed(NamedTuple):
    """How many of some requests the rate let through, and how long they took."""

    passed: int
    seconds: float


def _count_passed(caller: Caller, count: int) -> Passed:
    began = time.monotonic()
    passed = [caller.post().status for _ in range(count)].count(200)
    return Passed(passed, time.monotonic() - began)


class FaultRules(GatewaySuite):
    """Dead, slow and erring servers; callers that make things up."""

    def test_mirrored_copies_are_marked_and_neither_returned_nor_logged(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, mirror=100.0))
        candidate.delay, candidate.status = 0.05, 500
        answers = [caller.post(headers={CALLER_HEADER: f"r{number}"}) for number in range(50)]
        assert {(answer.status, answer.served_by) for answer in answers} == {(200, CHAMPION)}
        wait_for(lambda: len(candidate.posts(shadow=True)) == 50)
        assert candidate.posts() == champion.posts(shadow=True) == []
        copies = {sent.headers[REQUEST_HEADER]: sent.body for sent in candidate.posts(shadow=True)}
        assert copies == {sent.headers[REQUEST_HEADER]: sent.body for sent in champion.posts()}
        assert {exchange.served for exchange in Reader(traffic).until(50)} == {CHAMPION}

    def test_a_mirror_that_hangs_or_is_dead_delays_no_request(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, mirror=100.0))
        candidate.delay = 20.0
        began = time.monotonic()
        assert [caller.post().status for _ in range(20)] == [200] * 20
        candidate.stop()
        assert [caller.post().status for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 10.0

    @pytest.mark.parametrize("dead", [CHAMPION, CANDIDATE])
    def test_requests_of_a_killed_arm_are_rescued_and_logged_as_rescued(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer, dead: str
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0))
        assert {caller.post().status for _ in range(50)} == {200}
        victim, other = (champion, CANDIDATE) if dead == CHAMPION else (candidate, CHAMPION)
        victim.stop()
        time.sleep(0.1)
        assert {(a.status, a.served_by) for a in (caller.post() for _ in range(100))} == {(200, other)}
        exchanges = Reader(traffic).until(150)[50:]
        rescued = [exchange for exchange in exchanges if exchange.rescued]
        assert {exchange.assigned for exchange in rescued} == {dead}
        assert 20 < len(rescued) < 80
        assert len(rescued) == sum(exchange.assigned == dead for exchange in exchanges)
        victim.start()
        wait_for(lambda: caller.post(headers={FORCE_HEADER: dead}).status == 200)
        wait_for(lambda: {caller.post().served_by for _ in range(20)} == {CHAMPION, CANDIDATE})

    @pytest.mark.usefixtures("gateway")
    def test_a_killed_arm_loses_only_requests_in_progress(
        self, traffic: Gateway, opening: ListenOptions, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0))

        def kill() -> None:
            wait_for(lambda: len(candidate.posts()) > 100)
            candidate.stop()
            time.sleep(1.0)

        answers, faults = load(opening.http, MODEL, kill, callers=16)
        assert faults == []
        exchanges = Reader(traffic).until(len(answers))
        failed = [exchange.fault for exchange in exchanges if exchange.status != 200]
        assert set(failed) <= {"reset"}
        assert len(failed) <= 16
        assert sum(exchange.rescued for exchange in exchanges) > 0

    def test_an_arm_that_hangs_is_a_timeout(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        hasty = msgspec.structs.replace(CALM, deadline=0.5, eject_after=1000)
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, limits=hasty))
        candidate.delay = 3.0
        began = time.monotonic()
        answer = caller.post()
        assert 0.4 < time.monotonic() - began < 0.5 + _SLACK
        assert (answer.status, answer.arm) == (504, CANDIDATE)
        [exchange] = Reader(traffic).until(1)
        assert (exchange.assigned, exchange.served, exchange.status, exchange.fault) == (CANDIDATE, "", 504, "timeout")
        assert exchange.duration_us >= 400_000
        assert (len(champion.posts()), len(candidate.posts())) == (0, 1)

    def test_a_request_without_a_live_arm_is_logged(
        self, traffic: Gateway, caller: Caller, champion: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url))
        champion.stop()
        time.sleep(0.1)
        answer = caller.post()
        assert (answer.status, answer.arm) == (503, CHAMPION)
        [exchange] = Reader(traffic).until(1)
        assert (exchange.assigned, exchange.served, exchange.status) == (CHAMPION, "", 503)
        assert exchange.fault in {"connect", "reset"}

    def test_errors_of_a_server_pass_and_are_not_tried_again(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        patient = msgspec.structs.replace(CALM, eject_after=1000)
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, limits=patient))
        for status in (500, 503, 422):
            candidate.status = status
            assert (caller.post().status, champion.posts()) == (status, [])
        exchanges = Reader(traffic).until(3)
        assert [(exchange.status, exchange.served, exchange.fault) for exchange in exchanges] == [
            (500, CANDIDATE, ""),
            (503, CANDIDATE, ""),
            (422, CANDIDATE, ""),
        ]

    def test_the_rate_is_limited(self, traffic: Gateway, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url, limits=msgspec.structs.replace(CALM, rate=5)))
        answers = [caller.post().status for _ in range(60)]
        refused = answers.count(429)
        assert refused > 0
        assert answers.count(200) == 60 - refused >= 5
        exchanges = Reader(traffic).until(60)
        assert sum(exchange.fault == "rate" for exchange in exchanges) == refused
        assert {exchange.assigned for exchange in exchanges if exchange.status == 200} == {CHAMPION}

    def test_the_rate_is_shared_by_gateways(self, traffic: Gateway, caller: Caller, champion: ArmServer) -> None:
        traffic.share_rates(4)
        traffic.apply(routes_of(champion.url, limits=msgspec.structs.replace(CALM, rate=40)))
        first = _count_passed(caller, 80)
        assert 10 <= first.passed <= 11 + 10 * first.seconds
        traffic.share_rates(1)  # it is the only one now, and has all of the rate
        assert _count_passed(caller, 80).passed >= 40

    def test_a_share_below_one_request_a_second_lets_requests_through(
        self, traffic: Gateway, caller: Caller, champion: ArmServer
    ) -> None:
        traffic.share_rates(3)
        traffic.apply(routes_of(champion.url, limits=msgspec.structs.replace(CALM, rate=2)))
        first = _count_passed(caller, 20)
        assert 1 <= first.passed <= 2 + first.seconds
        wait_for(lambda: caller.post().status == 200)

    def test_headers_of_callers_are_not_trusted(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
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
        self, traffic: Gateway, opening: ListenOptions, champion: ArmServer
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

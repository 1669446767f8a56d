"""Rules of the port `traffic`: a gateway is started with small model servers behind it, and both are killed."""

from __future__ import annotations

import math
import time
import urllib.request

import pytest

from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import (
    ARM_HEADER,
    CALLER_HEADER,
    CANDIDATE,
    CHAMPION,
    FORCE_HEADER,
    KEY_HEADER,
    LONGEST_ID,
    REQUEST_HEADER,
    SERVED_HEADER,
    SHADOW_HEADER,
    TOKEN_HEADER,
)
from cumulant.ports.traffic import Gateway, ListenOptions
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.gateway import GATEWAY_KEY
from cumulant.testing.conformance.gateways.faults import FaultRules
from cumulant.testing.conformance.gateways.life import LifeRules
from cumulant.testing.conformance.gateways.tls import TlsRules
from cumulant.testing.conformance.routes import MODEL, routes_of
from cumulant.testing.gateways import Caller, Reader, wait_for


class TrafficConformance(FaultRules, LifeRules, TlsRules):
    """Give a fixture `connect`: makes a client, each time of the same gateway, which does not run."""

    def test_the_address_and_one_request(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, opening: ListenOptions
    ) -> None:
        began = int(time.time() * 1e6)
        traffic.apply(routes_of(champion.url, revision=3))
        address = traffic.address()
        assert address is not None
        assert address.url == f"http://{opening.http}"
        answer = caller.post(headers={CALLER_HEADER: "one"})
        assert (answer.status, answer.served_by, answer.arm) == (200, CHAMPION, CHAMPION)
        [sent] = champion.posts()
        assert (sent.headers[CALLER_HEADER], answer.headers[CALLER_HEADER]) == ("one", "one")
        assert (sent.headers[REQUEST_HEADER], sent.headers[ARM_HEADER]) == (answer.headers[REQUEST_HEADER], CHAMPION)
        assert sent.body == b'{"x": 1.0}'
        [exchange] = Reader(traffic).until(1)
        assert (exchange.request, exchange.caller_id) == (sent.headers[REQUEST_HEADER], "one")
        assert (exchange.model, exchange.assigned, exchange.served) == (MODEL, CHAMPION, CHAMPION)
        assert (exchange.status, exchange.fault, exchange.forced, exchange.revision, exchange.key) == (
            200,
            "",
            False,
            3,
            "",
        )
        assert began <= exchange.time <= time.time() * 1e6 + 1e6
        assert 0 < exchange.duration_us < 30e6
        assert not exchange.rescued
        assert traffic.erase_names([], [exchange.request]) == 1
        assert traffic.exchanges()[0] == [exchange.without_names()]

    def test_only_the_gateway_sends_a_server_its_arm(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        forged = {SERVED_HEADER: CHAMPION, ARM_HEADER: CHAMPION, SHADOW_HEADER: "1"}
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0, mirror=100.0, revision=1))
        assert caller.post(headers=forged | {SERVED_HEADER: CANDIDATE}).status == 200
        wait_for(lambda: candidate.posts(shadow=True))
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, revision=2))
        assert caller.post(headers=forged).status == 200
        [first], [copy], [own] = champion.posts(), candidate.posts(shadow=True), candidate.posts()
        assert [sent.headers.get(SERVED_HEADER) for sent in (first, copy, own)] == [CHAMPION, CANDIDATE, CANDIDATE]
        assert [sent.headers.get(ARM_HEADER) for sent in (first, copy, own)] == [CHAMPION, CHAMPION, CANDIDATE]
        candidate.stop()
        assert caller.post(headers=forged).status == 200
        rescued = champion.posts()[-1].headers
        assert (rescued.get(SERVED_HEADER), rescued.get(ARM_HEADER)) == (CHAMPION, CANDIDATE)

    def test_only_the_gateway_sends_a_server_its_token(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        forged = {TOKEN_HEADER: "forged", REQUEST_HEADER: "forged", "connection": f"keep-alive, {TOKEN_HEADER}"}
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0, mirror=100.0, revision=1))
        answers = [caller.post(headers=forged)]
        wait_for(lambda: candidate.posts(shadow=True))
        traffic.apply(routes_of(champion.url, candidate.url, weight=100.0, revision=2))
        answers.append(caller.post(headers=forged))
        [first], [copy], [own] = champion.posts(), candidate.posts(shadow=True), candidate.posts()
        candidate.stop()
        answers.append(caller.post(headers=forged))
        tokens = [token_for(GATEWAY_KEY, server.url) for server in (champion, candidate)]
        assert tokens[0] != tokens[1]
        rescued = champion.posts()[-1]
        sent = [request.headers[TOKEN_HEADER] for request in (first, copy, own, rescued)]
        assert sent == [tokens[0], tokens[1], tokens[1], tokens[0]]
        names = [request.headers[REQUEST_HEADER] for request in (first, own, rescued)]
        assert [answer.headers[REQUEST_HEADER] for answer in answers] == names
        assert copy.headers[REQUEST_HEADER] == names[0]
        assert len({*names, "forged"}) == 4
        assert [exchange.request for exchange in Reader(traffic).until(3)] == names
        assert all(TOKEN_HEADER not in answer.headers for answer in answers)

    def test_probes_and_labels_are_logged_as_no_predictions(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, opening: ListenOptions
    ) -> None:
        traffic.apply(routes_of(champion.url))
        with urllib.request.urlopen(f"http://{opening.http}/v2/health/ready", timeout=30):
            pass
        caller.post(path="/v1/labels?x=1")
        caller.post()
        assert [exchange.predicts for exchange in Reader(traffic).until(3)] == [False, False, True]

    def test_a_request_without_a_name_gets_one(self, traffic: Gateway, caller: Caller, champion: ArmServer) -> None:
        traffic.apply(routes_of(champion.url))
        assert caller.post().status == caller.post().status == 200
        names = [sent.headers[REQUEST_HEADER] for sent in champion.posts()]
        assert len(set(names)) == 2
        assert [sent.headers[CALLER_HEADER] for sent in champion.posts()] == names
        assert [(exchange.request, exchange.caller_id) for exchange in Reader(traffic).until(2)] == [
            (name, "") for name in names
        ]

    @pytest.mark.parametrize("given", ["", "a b", "x" * LONGEST_ID])
    def test_a_callers_name_is_passed_on_and_returned_and_an_empty_one_is_none(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, given: str
    ) -> None:
        traffic.apply(routes_of(champion.url))
        answer = caller.post(headers={CALLER_HEADER: given})
        [sent] = champion.posts()
        # An empty one counts as none; the gateway's own may stand there.
        names = {given} if given else {given, answer.headers[REQUEST_HEADER]}
        assert {sent.headers[CALLER_HEADER], answer.headers[CALLER_HEADER]} <= names
        assert [exchange.caller_id for exchange in Reader(traffic).until(1)] == [given]

    def test_a_longer_name_of_a_caller_counts_as_none(
        self, traffic: Gateway, caller: Caller, champion: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url))
        assert caller.post(headers={CALLER_HEADER: "x" * (LONGEST_ID + 1)}).status == 200
        assert [exchange.caller_id for exchange in Reader(traffic).until(1)] == [""]

    def test_weights(self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=20.0))
        answers = [caller.post() for _ in range(600)]
        assert {answer.status for answer in answers} == {200}
        to_candidate = sum(answer.served_by == CANDIDATE for answer in answers)
        assert abs(to_candidate - 120) < 4.5 * math.sqrt(600 * 0.2 * 0.8)
        assert all(answer.arm == answer.served_by for answer in answers)
        exchanges = Reader(traffic).until(600)
        assert sum(exchange.assigned == CANDIDATE for exchange in exchanges) == to_candidate

    @pytest.mark.parametrize("weight", [0.0, 100.0])
    def test_all_or_nothing(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer, weight: float
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=weight))
        arms = {caller.post().served_by for _ in range(100)}
        assert arms == {CANDIDATE if weight else CHAMPION}

    def test_a_ramp_moves_keys_in_one_direction(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
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
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
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
        exchanges = Reader(traffic).until(200)
        assert len({exchange.key for exchange in exchanges}) == 40
        assert {exchange.assigned for exchange in exchanges} == {CHAMPION, CANDIDATE}
        assert all(exchange.key and not exchange.key.startswith("c") for exchange in exchanges)

    @pytest.mark.parametrize("body", [{}, [], {"card": None}, {"rows": []}, {"inputs": [{"name": "card"}]}, 7, "card"])
    def test_a_body_without_the_key_is_answered(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, body: object
    ) -> None:
        traffic.apply(routes_of(champion.url, champion.url, weight=50.0, key="card"))
        assert caller.post(body).status == 200
        assert [exchange.key for exchange in Reader(traffic).until(1)] == [""]

    def test_a_forced_arm_is_logged_as_forced(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=0.0))
        assert caller.post(headers={FORCE_HEADER: CANDIDATE}).served_by == CANDIDATE
        assert caller.post(headers={FORCE_HEADER: CHAMPION}).served_by == CHAMPION
        assert caller.post(headers={FORCE_HEADER: "nobody"}).served_by == CHAMPION
        exchanges = [(exchange.assigned, exchange.forced) for exchange in Reader(traffic).until(3)]
        assert exchanges == [(CANDIDATE, True), (CHAMPION, True), (CHAMPION, False)]

    def test_only_the_champions_requests_are_mirrored_and_in_part(
        self, traffic: Gateway, caller: Caller, champion: ArmServer, candidate: ArmServer
    ) -> None:
        traffic.apply(routes_of(champion.url, candidate.url, weight=50.0, mirror=50.0))
        for _ in range(400):
            assert caller.post().status == 200
        time.sleep(0.5)
        own, copies, of_champion = candidate.posts(), candidate.posts(shadow=True), champion.posts()
        assert len(own) + len(of_champion) == 400
        assert {sent.headers[REQUEST_HEADER] for sent in copies} <= {s.headers[REQUEST_HEADER] for s in of_champion}
        assert abs(len(copies) - len(of_champion) / 2) < 4.5 * math.sqrt(len(of_champion) / 4)

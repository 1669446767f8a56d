"""Rules of a gateway whose servers speak TLS: a server that cannot be verified gets no request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Routes
from cumulant.ports.traffic import Gateway
from cumulant.testing.arms import ArmServer
from cumulant.testing.certificates import Authority
from cumulant.testing.conformance.gateway import GatewaySuite
from cumulant.testing.conformance.routes import MODEL, routes_of
from cumulant.testing.gateways import Caller, wait_for


def trusting(routes: Routes, authority: str) -> Routes:
    """The routes, with arms whose servers must show a certificate that the authority signed."""
    arms: dict[str, Arm] = {arm.name: msgspec.structs.replace(arm, authority=authority) for arm in routes.arms}
    return msgspec.structs.replace(routes, champion=arms[CHAMPION], candidate=arms.get(CANDIDATE))


class TlsRules(GatewaySuite):
    """Servers with good certificates, and with those of strangers."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path / "authority")

    @pytest.fixture
    def encrypted(self) -> Iterator[Callable[[str, Authority, str], ArmServer]]:
        """Starts a server of an arm with a certificate for a name."""
        servers: list[ArmServer] = []

        def start(name: str, authority: Authority, host: str) -> ArmServer:
            servers.append(ArmServer(name, tls=authority.signed(host)).start())
            return servers[-1]

        yield start
        for arm in servers:
            arm.stop()

    def test_requests_reach_servers_over_tls(
        self,
        traffic: Gateway,
        caller: Caller,
        authority: Authority,
        encrypted: Callable[[str, Authority, str], ArmServer],
        candidate: ArmServer,
    ) -> None:
        champion = encrypted(CHAMPION, authority, "IP:127.0.0.1")
        assert champion.url.startswith("https://")
        routes = trusting(routes_of(champion.url, candidate.url, weight=50.0), authority.file)
        traffic.apply(routes)
        assert traffic.in_force(MODEL) == routes
        answers = [caller.post() for _ in range(60)]
        assert {answer.status for answer in answers} == {200}
        assert {answer.served_by for answer in answers} == {CHAMPION, CANDIDATE}, "one over TLS, the other plain"
        assert all(answer.arm == answer.served_by for answer in answers)
        wait_for(lambda: [server.ready for server in traffic.health(MODEL)] == [True, True])

    @pytest.fixture(params=["another authority", "another name"])
    def unverified(
        self,
        request: pytest.FixtureRequest,
        authority: Authority,
        encrypted: Callable[[str, Authority, str], ArmServer],
        tmp_path: Path,
    ) -> ArmServer:
        """A candidate's server that shows a stranger's certificate, or one of the authority for another name."""
        if request.param == "another authority":
            return encrypted(CANDIDATE, Authority(tmp_path / "stranger"), "IP:127.0.0.1")
        return encrypted(CANDIDATE, authority, "DNS:elsewhere.test")

    def test_a_server_that_cannot_be_verified_gets_no_request(
        self, traffic: Gateway, caller: Caller, authority: Authority, unverified: ArmServer, champion: ArmServer
    ) -> None:
        traffic.apply(trusting(routes_of(champion.url, unverified.url, weight=100.0), authority.file))
        answers = [caller.post() for _ in range(20)]
        assert {(answer.status, answer.arm, answer.served_by) for answer in answers} == {(200, CANDIDATE, CHAMPION)}
        assert unverified.received == []
        wait_for(
            lambda: {server.arm: server.ready for server in traffic.health(MODEL)} == {CHAMPION: True, CANDIDATE: False}
        )

    def test_an_authority_that_is_added_later_is_used(
        self,
        traffic: Gateway,
        caller: Caller,
        authority: Authority,
        encrypted: Callable[[str, Authority, str], ArmServer],
        tmp_path: Path,
    ) -> None:
        server = encrypted(CHAMPION, authority, "IP:127.0.0.1")
        traffic.apply(trusting(routes_of(server.url, revision=1), Authority(tmp_path / "stranger").file))
        assert caller.post().status == 503
        traffic.apply(trusting(routes_of(server.url, revision=2), authority.file))
        wait_for(lambda: caller.post().status == 200)

    @pytest.mark.parametrize("holds", [None, "no certificate"])
    @pytest.mark.usefixtures("gateway")
    def test_a_file_that_is_no_authority_is_refused(
        self, traffic: Gateway, champion: ArmServer, tmp_path: Path, holds: str | None
    ) -> None:
        path = tmp_path / "authority.pem"
        if holds is not None:
            path.write_text(holds, encoding="ascii")
        present = routes_of(champion.url, revision=1)
        traffic.apply(present)
        with pytest.raises(UsageError, match="no certificates of authorities"):
            traffic.apply(trusting(routes_of("https://127.0.0.1:1", revision=2), str(path)))
        assert traffic.in_force(MODEL) == present

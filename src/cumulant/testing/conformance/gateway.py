"""Fixtures of the suites of a running gateway."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cumulant.core.traffic import (
    CANDIDATE,
    CHAMPION,
)
from cumulant.ports.traffic import Gateway, ListenOptions
from cumulant.testing.arms import ArmServer
from cumulant.testing.conformance.routes import MODEL, GatewayRoutesConformance
from cumulant.testing.gateways import Caller, GatewayProcess, running

GATEWAY_KEY = b"g" * 32


class GatewaySuite(GatewayRoutesConformance):
    """Running gateways, started by the driver's `command`."""

    @pytest.fixture
    def traffic(self, connect: Callable[[], Gateway]) -> Iterator[Gateway]:
        client = connect()
        yield client
        client.close()

    @pytest.fixture
    def opening(self, tmp_path: Path) -> ListenOptions:
        key_file = tmp_path / "log.key"
        key_file.write_bytes(b"k" * 32)
        gateway_key_file = tmp_path / "gateway.key"
        gateway_key_file.write_bytes(GATEWAY_KEY)
        gateway_key_file.chmod(0o600)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return ListenOptions(http=f"127.0.0.1:{port}", key_file=str(key_file), gateway_key_file=str(gateway_key_file))

    @pytest.fixture
    def gateway(self, traffic: Gateway, opening: ListenOptions, tmp_path: Path) -> Iterator[GatewayProcess]:
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
    def caller(self, gateway: GatewayProcess) -> Iterator[Caller]:
        with Caller(gateway.url, MODEL) as caller:
            yield caller

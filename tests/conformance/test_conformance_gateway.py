"""The embedded gateway keeps the rules of the port `traffic`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cumulant.drivers.local.gateway.client import LocalTraffic
from cumulant.ports.traffic import Traffic
from cumulant.testing.conformance.traffic import TrafficConformance


class TestLocalGateway(TrafficConformance):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[], Traffic]:
        return lambda: LocalTraffic(f"local://{tmp_path}/gateway")

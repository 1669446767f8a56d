"""Envoy keeps the rules of the port `traffic`."""

import pytest

from cumulant.core.errors import MissingPartError
from cumulant.drivers.envoy import engine
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.testing.conformance.traffic import TrafficConformance


def missing() -> str:
    try:
        engine.find_program()
    except MissingPartError as error:
        return f"{error.message}: {error.hint}"
    return ""


@pytest.mark.skipif(bool(missing()), reason=missing() or "present")
class TestEnvoyTraffic(TrafficConformance):
    @pytest.fixture
    def connect(self, tmp_path):
        return lambda: EnvoyTraffic(f"envoy://{tmp_path}/deep/gateway")

"""The file of a gateway's routes, which another release of Cumulant may read."""

from __future__ import annotations

import json

from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.envoy.folder import Folder


def test_a_gateway_without_an_agent_writes_what_an_earlier_release_reads(tmp_path):
    champion = Arm(name="champion", version="1", endpoints=("http://127.0.0.1:9001",))
    EnvoyTraffic(f"envoy://{tmp_path}").apply(Routes(model="m", revision=1, champion=champion))
    state = json.loads((tmp_path / "state.json").read_text())
    assert state.keys() <= {"generation", "routes", "before", "gateway_key_file"}
    assert Folder(tmp_path).state().routes["m"].champion == champion

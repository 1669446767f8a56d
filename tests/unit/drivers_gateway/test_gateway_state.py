"""The file of a gateway's routes, which another release of Cumulant may read."""

from __future__ import annotations

import json

import msgspec
import pytest

from cumulant.core.errors import StorageError
from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.envoy.folder import Folder
from cumulant.ports.traffic import ListenOptions
from cumulant.testing.gateways import running


def test_a_gateway_without_an_agent_writes_what_an_earlier_release_reads(tmp_path):
    champion = Arm(name="champion", version="1", endpoints=("http://127.0.0.1:9001",))
    EnvoyTraffic(f"envoy://{tmp_path}").apply(Routes(model="m", revision=1, champion=champion))
    state = json.loads((tmp_path / "state.json").read_text())
    assert state.keys() <= {"generation", "routes", "before", "gateway_key_file"}
    assert Folder(tmp_path).state().routes["m"].champion == champion


ROUTES = Routes(model="m", revision=1, champion=Arm(name="champion", version="1", endpoints=("http://127.0.0.1:9001",)))
LATER = msgspec.structs.replace(ROUTES, revision=2)


@pytest.mark.parametrize("name", ["clusters", "routes"])
def test_a_change_that_cannot_be_written_leaves_the_routes_before(tmp_path, name):
    traffic, folder = EnvoyTraffic(f"envoy://{tmp_path}"), Folder(tmp_path)
    traffic.apply(ROUTES)
    path = getattr(folder, name)
    path.unlink()
    path.mkdir()  # no file can take its place
    with pytest.raises(StorageError, match=f"{name}.json cannot be written"):
        traffic.apply(LATER)
    assert folder.state().routes == {"m": ROUTES}
    path.rmdir()
    traffic.apply(LATER)
    assert folder.state().routes == {"m": LATER}


def test_a_change_that_was_cut_off_is_finished(tmp_path):
    traffic, folder = EnvoyTraffic(f"envoy://{tmp_path}"), Folder(tmp_path)
    opening = ListenOptions(http="127.0.0.1:0", admin="127.0.0.1:0")
    with (tmp_path / "output").open("wb") as output, running(traffic, opening, output):
        traffic.apply(ROUTES)
        traffic.finish_change()
        folder.write_state(folder.state().with_routes(LATER))  # as a process that was killed leaves it
        with folder.lock_routes():
            traffic.finish_change()
        assert traffic.in_force("m") == ROUTES, "the other process may still do so"
        content = folder.clusters.read_bytes()
        folder.clusters.unlink()
        folder.clusters.mkdir()
        with pytest.raises(StorageError, match=r"clusters.json cannot be written"):
            traffic.finish_change()
        folder.clusters.rmdir()
        folder.clusters.write_bytes(content)
        traffic.finish_change()
        assert traffic.in_force("m") == LATER

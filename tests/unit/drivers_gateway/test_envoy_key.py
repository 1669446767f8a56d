"""Routes of Envoy while the gateway's key is missing, being written or damaged."""

from __future__ import annotations

import json
import threading

import pytest

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.network.gateway_token import token_for
from cumulant.core.traffic import Arm, Routes
from cumulant.drivers.envoy import published
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.envoy.folder import Folder, GatewayState

KEY, URL = b"k" * 32, "http://127.0.0.1:9001"
ROUTES = Routes(model="late", revision=1, champion=Arm(name="champion", version="1", endpoints=(URL,)))


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "gateway.key"


@pytest.fixture
def folder(tmp_path, key_file):
    """That of a gateway with a key, which is not open yet where it runs."""
    found = Folder(tmp_path / "gateway")
    found.make()
    found.write_state(GatewayState(gateway_key_file=str(key_file)))
    return found


def write(path, key, mode=0o600):
    draft = path.with_name("draft")
    draft.write_bytes(key)
    draft.chmod(mode)
    draft.replace(path)


def apply(folder):
    EnvoyTraffic(f"envoy://{folder.path}").apply(ROUTES)
    return folder.clusters.read_text()


@pytest.mark.parametrize(("key", "mode"), [(None, 0), (b"", 0o600), (KEY, 0o644)])
def test_a_running_gateway_keeps_its_routes_while_its_key_is_missing(folder, key_file, monkeypatch, key, mode):
    monkeypatch.setattr(published, "_PATIENCE", 0.1)
    if key is not None:
        write(key_file, key, mode)
    with folder.lock_gateway():
        with pytest.raises(EngineUnavailableError, match="so its routes stay"):
            apply(folder)
        assert not folder.clusters.exists()
        assert folder.state().routes == {}
        write(key_file, KEY)
        assert token_for(KEY, URL) in apply(folder)


def test_a_change_waits_for_a_key_that_is_being_written(folder, key_file):
    with folder.lock_gateway():
        writer = threading.Timer(0.2, write, (key_file, KEY))
        writer.start()
        assert token_for(KEY, URL) in apply(folder)
        writer.join()


@pytest.mark.parametrize("key", [None, b"short", "folder"])
def test_without_a_gateway_no_key_refuses_a_change(folder, key_file, key):
    if key == "folder":
        key_file.mkdir()
    elif key is not None:
        write(key_file, key)
    assert "token" not in json.dumps(json.loads(apply(folder))["resources"][0]["load_assignment"])
    assert folder.state().routes == {"late": ROUTES}

"""What a gateway of Envoy leaves in its folder, and what becomes of it in a copy."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("fcntl")

from cumulant.drivers.envoy.folder import PRIVATE, Folder, RunningGateway
from cumulant.ports.traffic import GatewayAddress


def test_the_gateway_of_a_copy_leaves_the_socket_of_the_original_alone(tmp_path):
    private = tmp_path / f"{PRIVATE}1"
    private.mkdir()
    original = Folder(tmp_path / "original")
    original.make()
    address = GatewayAddress(url="http://127.0.0.1:1", admin="http://127.0.0.1:2", pid=1)
    original.write_gateway(RunningGateway(address, str(private / "admin")))
    copy = Folder(shutil.copytree(original.path, tmp_path / "copy"))
    with copy.lock_gateway():
        assert copy.gateway() is None
    assert private.is_dir()
    with original.lock_gateway():
        pass
    assert not private.exists(), "what a killed gateway of this folder left goes"


def test_no_reader_takes_the_record_of_a_killed_gateway_for_the_next_one(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.make()
    folder.write_gateway(RunningGateway(GatewayAddress(url="http://127.0.0.1:1", admin="", pid=1), str(tmp_path / "a")))
    seen = []
    remove = Folder.remove_gateway

    def observed(self):
        seen.append(Folder(tmp_path).gateway())
        remove(self)

    monkeypatch.setattr(Folder, "remove_gateway", observed)
    with folder.lock_gateway():
        assert folder.is_running()
        assert folder.gateway() is None
    assert seen == [None]

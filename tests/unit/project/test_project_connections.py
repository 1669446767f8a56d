"""Whether what an environment names on other machines answers, and for how long that is waited for."""

from __future__ import annotations

import threading
from typing import ClassVar

import pytest

from cumulant.core.errors import EngineUnavailableError, UsageError
from cumulant.core.refs import TableRef
from cumulant.drivers.local import driver as local
from cumulant.ports.driver import Driver
from cumulant.ports.plugins import Drivers
from cumulant.project.connections import check_connections, remote_settings
from cumulant.project.file.loading import load


class Elsewhere:
    """Clients of a server that answers, refuses or is silent, as the URL says."""

    silent: ClassVar[threading.Event] = threading.Event()

    def __init__(self, url: str) -> None:
        self.url = url

    def find(self, key: str) -> TableRef | None:
        if "refuses" in self.url:
            raise UsageError("the password is wrong", hint="correct it")
        if "silent" in self.url:
            assert Elsewhere.silent.wait(60)
        return None

    tables = days = head = lambda self: self.find("")


NAME = f"{__name__}:Elsewhere"
PORTS = ("journal", "tables", "objects", "log", "online", "registry")
DRIVERS = Drivers(
    {
        "sqlite": local.sqlite,
        "file": local.file,
        "env": local.env,
        "open": local.open,
        "inline": local.inline,
        "net": Driver(clients=dict.fromkeys(PORTS, NAME)),
    }
)


def project(folder, **keys):
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    (folder / "cumulant.yaml").write_text(f"version: 1\nenvironments:\n  local:\n{lines}")
    return load(folder, drivers=DRIVERS)


def embedded(folder, **keys):
    return project(folder, tracking_uri="file://none", **keys)


def test_stores_on_this_machine_are_not_asked(tmp_path):
    found = embedded(tmp_path, region="eu")
    assert check_connections(found) == []
    assert remote_settings(found) == {}
    assert not (tmp_path / ".cumulant" / "online.db").exists()


def test_each_key_of_the_environment_is_named_once_with_its_fault(tmp_path):
    found = embedded(tmp_path, store="net://me:secret@refuses", log="net://there", online="net://refuses")
    results = {result.setting: result for result in check_connections(found)}
    assert list(results) == ["store", "log", "online"]
    assert results["log"].error is None
    assert isinstance(results["online"].error, UsageError)
    assert results["online"].error.message == results["store"].error.message == "the password is wrong"
    assert "secret" not in results["store"].url


@pytest.mark.parametrize("silent", [("online",), ("journal", "online", "log")])
def test_those_that_are_silent_are_waited_for_together(tmp_path, silent):
    Elsewhere.silent.clear()
    found = embedded(tmp_path, **{"journal": "net://x", "online": "net://x"} | dict.fromkeys(silent, "net://silent"))
    results = {result.setting: result.error for result in check_connections(found, limit=0.2)}
    assert {name for name, error in results.items() if isinstance(error, EngineUnavailableError)} == set(silent)
    assert "does not answer within 0.2 s" in results["online"].message
    Elsewhere.silent.set()

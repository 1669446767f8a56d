"""Where a project's gateway is: its folder in the state, behind the scheme that the environment names."""

from __future__ import annotations

import pytest

from cumulant.core.errors import ProjectFileError, UsageError
from cumulant.ports.driver import Driver
from cumulant.ports.plugins import Drivers
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.loading import load
from cumulant.testing.traffic import MemoryTraffic

HEAD = "version: 1\nmodel: {name: late}\n"


class Gateway(MemoryTraffic):
    def __init__(self, url):
        super().__init__()
        self.url = url


def project(folder, text=HEAD, environment="local", drivers=None):
    (folder / "cumulant.yaml").write_text(text)
    return load(folder, environment=environment, drivers=drivers)


@pytest.mark.parametrize(
    ("declared", "url"),
    [
        (None, "envoy://{state}/gateway"),
        ("envoy://", "envoy://{state}/gateway"),
        ("envoy://doors/one", "envoy://{root}/doors/one"),
        ("envoy:///run/one", "envoy:///run/one"),
    ],
)
def test_the_folder_of_the_gateway(tmp_path, declared, url):
    text = HEAD + (f"environments:\n  prod: {{traffic: '{declared}'}}\n" if declared else "environments:\n  prod: {}\n")
    found = project(tmp_path, text, "prod")
    expected = url.format(root=tmp_path, state=found.state)
    assert found.endpoints.traffic == expected
    (row,) = [row for row in found.file.resolved(found.endpoints) if row.path == "environment.traffic"]
    assert row.value == expected


def in_memory():
    record = Driver(clients={"traffic": f"{__name__}:Gateway"}, path="folder", default_paths={"traffic": "gateway"})
    return Drivers({"envoy": record})


def test_the_client_is_made_once_from_its_driver(tmp_path):
    found = project(tmp_path, drivers=in_memory())
    assert found.gateway().url == f"envoy://{found.state}/gateway"
    assert found.gateway() is found.gateway()


def test_a_gateway_that_no_driver_serves_is_refused_with_its_line(tmp_path):
    found = project(tmp_path, HEAD + "environments:\n  prod:\n    traffic: ftp://x\n", "prod", in_memory())
    with pytest.raises(ProjectFileError, match=r'cumulant\.yaml:5: no driver for "ftp://" is installed'):
        check_drivers(found)


@pytest.mark.parametrize("url", ["local://", "local://doors/one"])
def test_the_gateway_of_earlier_versions_is_refused_with_what_to_write(tmp_path, url):
    found = project(tmp_path, HEAD + f"environments:\n  prod:\n    traffic: {url}\n", "prod")
    told = r"cumulant\.yaml:5: the embedded gateway `local://` was removed; write `traffic: envoy://`, or leave it out"
    with pytest.raises(ProjectFileError, match=told):
        check_drivers(found)
    with pytest.raises(UsageError, match="the embedded gateway `local://` was removed"):
        found.gateway()

"""`resources.steps`: what steps need of a worker, and that it has no effect without workers."""

import pytest

from cumulant.core.errors import ProjectFileError
from cumulant.drivers.local import driver as local
from cumulant.drivers.worker import driver as workers
from cumulant.flows.ledger.step_function import can_reach, needed_resources, runs_elsewhere, supports_hosts
from cumulant.ports.compute import Resources
from cumulant.ports.plugins import Drivers
from cumulant.project.file.loading import load

PROJECT = """\
version: 1
model: {name: shop}
data: {orders: {path: orders.csv}}
resources:
  steps:
    search: {cpu: 8, memory: 2GiB, gpu: 1, region: eu}
    data: {memory: 1GiB}
    final_fit: {cpu: 0.5}
environments:
  local: {compute: "%s://"}
"""


def project(folder, compute, text=PROJECT):
    (folder / "cumulant.yaml").write_text(text % compute)
    records = {"worker": workers.worker, "inline": local.inline, "subprocess": local.subprocess, "file": local.file}
    return load(folder, drivers=Drivers({**records, "sqlite": local.sqlite, "env": local.env, "open": local.open}))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("search", Resources(8, 2 << 30, 1, "eu")),
        ("data orders", Resources(memory=1 << 30)),
        ("final fit", Resources(cpu=0.5)),
        ("features", Resources()),
        ("register", Resources()),
    ],
)
def test_what_a_step_needs_of_its_worker(tmp_path, step, expected):
    assert needed_resources(project(tmp_path, "worker"), step) == expected
    for here in ("inline", "subprocess"):
        assert needed_resources(project(tmp_path, here), step) == Resources()


def test_a_step_that_does_not_exist(tmp_path):
    with pytest.raises(ProjectFileError, match="serch"):
        project(tmp_path, "worker", PROJECT.replace("    search:", "    serch:"))


@pytest.mark.parametrize("value", ["cpu: -1", "memory: much", "gpu: 1.5", "region: 'a b'"])
def test_resources_that_mean_nothing(tmp_path, value):
    with pytest.raises(ProjectFileError):
        project(tmp_path, "worker", PROJECT.replace("cpu: 0.5", value))


def test_what_a_worker_can_reach(tmp_path):
    elsewhere, here = project(tmp_path, "worker"), project(tmp_path, "subprocess")
    assert (runs_elsewhere(elsewhere), runs_elsewhere(here)) == (True, False)
    for port in ("online", "objects"):
        assert can_reach(here, port)
        assert not can_reach(elsewhere, port)
        assert not supports_hosts(here, port)

"""A project on machines that share servers only: each may be lost with its folder, and the story ends the same."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_shop
from test_e2e_release import QUICK

from cumulant.testing.servers.cluster import Cluster, declare_environment, engines

pytestmark = [pytest.mark.live, pytest.mark.slow]

SECONDS = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    # Sockets lie below the machines' folders, and their paths must be short.
    folder = tmp_path_factory.mktemp("m")
    try:
        with engines() as started:
            made = Cluster(folder, started)
            try:
                yield made
            finally:
                made.lose_all()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def source(cluster, tmp_path_factory):
    """The project as version control has it."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("source") / "shop", rows=20_000, project=QUICK)
    declare_environment(folder / "cumulant.yaml", cluster.engines.section())
    return folder


def wait_until(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_lost_machine_ends_with_its_folder_and_no_other_does(cluster, source):
    lost, other = cluster.machine("lost"), cluster.machine("other")
    for machine in (lost, other):
        machine.check_out(source)
        machine.start("replay", "--from", "2024-01-21", "--to", "2024-02-21", "--url", "http://127.0.0.1:9")
    wait_until(lambda: lost.processes() and other.processes(), "they run")
    lost.lose()
    assert (lost.processes(), lost.folder.exists()) == ([], False)
    assert other.folder.exists()
    other.lose()


def test_a_training_is_finished_by_another_machine(cluster, source):
    trainer = cluster.machine("trainer")
    trainer.check_out(source)
    process = trainer.start("train")
    wait_until(lambda: "search" in (trainer.folder / "train.log").read_text(), "the search begins")
    trainer.lose()
    process.wait()
    trainer.check_out(source)
    trained = trainer.run("train")
    assert trained["model"]["version"] == "1"
    assert {"features"} <= set(trained["reused"])
    assert trainer.run("events", "verify")["breaks"] == []

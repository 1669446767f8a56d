"""A project on machines that share servers only: each may be lost with its folder, and the story ends the same."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

import httpx
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_shop
from test_e2e_release import QUICK, Load

from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.outcomes.labels import outcomes_of
from cumulant.flows.release import store
from cumulant.flows.traffic.clients import gateway_url
from cumulant.project.file.loading import load
from cumulant.testing.servers.cluster import ENVIRONMENT, Cluster, declare_environment, engines
from cumulant.testing.servers.programs import free_port

pytestmark = [pytest.mark.live, pytest.mark.slow]

# Samples alone move the release on: what decides is tested elsewhere.
PROJECT = (
    QUICK.replace("  trials: 1\n", "  trials: 1\n  trainers: [lightgbm]\n")
    + """\
    disagreement: {required: false}
    prediction: {required: false}
    distance: {required: false}
    quality: {required: false, margin: 0.5}
"""
)
SECONDS = 300.0
SERVERS = ("one", "two")
FIRST, LAST = "2024-01-21", "2024-03-01"


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
    folder = e2e_shop.make(tmp_path_factory.mktemp("source") / "shop", rows=8_000, project=PROJECT)
    declare_environment(folder / "cumulant.yaml", cluster.engines.section(deploy="hosts://"))
    return folder


@pytest.fixture(scope="module")
def project(cluster, source):
    """The project as an operator's machine has it."""
    desk = cluster.machine("desk")
    desk.check_out(source)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in desk.environment().items():
            if not name.startswith(("PYTEST", "PYTHON")):
                patch.setenv(name, value)
        with load(desk.project, environment=ENVIRONMENT) as opened:
            yield opened


@pytest.fixture(scope="module")
def trained(cluster, source):
    """A champion and a candidate in the registry; the machine that trained the first one is lost within its search."""
    trainer = cluster.machine("trainer")
    trainer.check_out(source)
    trainer.start("train")
    wait_until(lambda: "search" in (trainer.folder / "train.log").read_text(), "the search begins")
    trainer.lose()
    trainer.check_out(source)
    first = trainer.run("train")
    path = trainer.project / "cumulant.yaml"
    path.write_text(path.read_text().replace("  trials: 1\n", "  trials: 1\n  rows: 7000\n"))
    return first, trainer.run("train", codes=(0, 1))


@cache
def gateway_port(address):
    """The same for the machine that takes the place of a lost one: callers know it."""
    return free_port(address)


def start_serving(cluster, name, source):
    """The machine of that name, with `cumulant up` in its role; it returns before that answers."""
    machine = cluster.machine(name)
    machine.check_out(source)
    match name:
        case "gateway":
            listening = f"{machine.address}:{gateway_port(machine.address)}"
            machine.start("up", "--role", "gateway", "--http", listening, "--insecure")
        case "controller":
            machine.start("up", "--role", "controller")
        case _:
            machine.start("up", "--role", "servers", "--advertise", machine.address)
    return machine


@pytest.fixture(scope="module")
def serving(cluster, source, trained, project):
    """All machines, and a gateway that answers."""
    for name in ("controller", *SERVERS, "gateway"):
        start_serving(cluster, name, source)

    def ready():
        present = deployment_of(project).present(project.name)
        return {server.host for server in present if server.ready} == set(SERVERS) and gateway_url(project)

    wait_until(ready, "gateway and servers are ready")


def wait_until(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_lost_machine_ends_with_its_folder_and_no_other_does(cluster, source):
    lost, other = cluster.machine("lost"), cluster.machine("other")
    for machine in (lost, other):
        machine.check_out(source)
        machine.start("replay", "--from", FIRST, "--to", LAST, "--url", "http://127.0.0.1:9")
    wait_until(lambda: lost.processes() and other.processes(), "they run")
    lost.lose()
    assert (lost.processes(), lost.folder.exists()) == ([], False)
    assert other.folder.exists()
    other.lose()


def test_another_machine_finishes_a_training(cluster, trained):
    first, second = trained
    assert (first["model"]["version"], second["model"]["version"]) == ("1", "2")
    assert {"features"} <= set(first["reused"])
    assert cluster.machine("trainer").run("events", "verify")["breaks"] == []


def current(project):
    release = store.read(project.journal(), project.name)
    return None if release is None else release[0]


def test_a_release_is_promoted_though_machines_are_lost_and_the_journal_restarts(cluster, source, serving, project):
    with Load(project.root, environment=ENVIRONMENT, speed=10_000) as load:
        cluster.machine("trainer").run("release", "start", "returns/2")
        wait_until(lambda: current(project).step.label == "canary 10%", "the canary begins")
        lost = time.monotonic()
        for name in ("one", "controller", "gateway"):
            cluster.machine(name).lose()
        for name in ("one", "controller", "gateway"):
            start_serving(cluster, name, source)
        wait_until(lambda: load.seen[-1].begun > lost and not load.seen[-1].failed, "the new gateway answers")
        found = load.seen[-1].ended
        wait_until(lambda: current(project).step.label != "canary 10%", "the new controller goes on")
        cluster.engines.journal.stop()
        time.sleep(1.0)
        cluster.engines.journal.start()
        with slow_and_failing(cluster.engines.store):
            time.sleep(15.0)
        wait_until(lambda: current(project).over, "the release ends")
        wait_until(lambda: load.seen[-1].version == "2", "its version answers")
        assert load.error is None, load.error
    release = current(project)
    assert release.status == "promoted", release.reason
    assert [step.label for step in release.passed] == ["shadow", "canary 10%", "canary 50%", "canary 95%"]
    # Requests under way to a lost server fail, and a few before the gateway notices it; without a gateway all do.
    answerable = [seen for seen in load.seen if not lost < seen.ended <= found]
    failed = Counter(seen.failed for seen in answerable if seen.failed)
    assert failed.total() < 0.05 * len(answerable), failed
    assert load.result.labels > 0
    assert cluster.machine("trainer").run("events", "verify")["breaks"] == []


def test_labels_are_joined_once_though_the_machine_that_ingests_is_lost(cluster, source, serving, project):
    known = pl.col("ordered") + timedelta(days=3)
    landed = e2e_shop.orders(8_000).select("order", "ordered", "returned", known_time=known)
    landed.write_csv(source / "landed.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    clerk, other = cluster.machine("clerk"), cluster.machine("other")
    clerk.check_out(source)
    clerk.start("labels", "ingest", str(clerk.project / "landed.csv"))
    wait_until((clerk.folder / "labels.log").read_text, "it ingests")
    clerk.lose()
    for machine in (clerk, other):
        machine.check_out(source)
        (labels, *_) = machine.run("labels", "ingest", str(machine.project / "landed.csv"))["sources"]
        assert labels["rows"] == 8_000
    assert labels["again"]
    reports = [machine.run("labels", "report") for machine in (clerk, other)]
    assert reports[0]["labelled"] == reports[1]["labelled"] > 0
    rows, _ = outcomes_of(project).labelled()
    # Each answer once; one request may have two, since the gateway repeats and mirrors.
    assert rows.select(pl.struct("worker", "sequence", "row").is_unique().all()).item()


def test_monitoring_goes_on_where_a_lost_machine_stopped(cluster, source, serving):
    watcher = cluster.machine("watcher")
    watcher.check_out(source)
    watcher.start("monitor", "watch", "--once")
    wait_until((watcher.folder / "monitor.log").read_text, "it evaluates")
    watcher.lose()
    watcher.check_out(source)
    with slow_and_failing(cluster.engines.store):
        evaluated = watcher.run("monitor", "watch", "--once", codes=(0, 1))
    assert evaluated["version"] == "2"
    assert evaluated["action"]["do"] in {"nothing", "wait", "train"}


@contextmanager
def slow_and_failing(store):
    """Each call of the object store takes half a second, and one in ten is refused."""
    store.delay, store.refused = 0.5, 0.1
    try:
        yield
    finally:
        store.delay = store.refused = 0.0


def test_an_emptied_online_store_is_named_and_filled_again(cluster, serving, project):
    url, row = gateway_url(project), e2e_shop.orders(1).drop("returned").with_columns(amount=5.0)
    predict = f"{url}/v1/models/returns/predict"
    body = {"rows": row.with_columns(pl.col("ordered").dt.to_string("iso:strict")).to_dicts()}
    before = httpx.post(predict, json=body, timeout=30)
    assert before.status_code == 200, before.text
    cluster.engines.online.kill()
    cluster.engines.online.start()
    emptied = httpx.post(predict, json=body, timeout=30)
    assert (emptied.status_code, "no online state" in emptied.text) == (503, True)
    cluster.machine("controller").lose()
    start_serving(cluster, "controller", project.root)
    wait_until(lambda: httpx.post(predict, json=body, timeout=30).status_code == 200, "it is filled again")
    # Rows that were sent since the snapshots were in the store only, so that the values may differ.
    after = httpx.post(predict, json=body, timeout=30).json()
    assert (after["version"], len(after["predictions"])) == (before.json()["version"], 1)

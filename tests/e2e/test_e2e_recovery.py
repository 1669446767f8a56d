"""Trainings that are killed, interrupted, run side by side, or run out of disk: what is left, and how they go on."""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import e2e_shop
import pytest
from e2e_support import (
    attempts,
    check_whole,
    finishes,
    kill,
    mlflow_runs,
    opened,
    outcome,
    run,
    start_fork,
    wait_for,
)

from cumulant.flows.ledger.ledger_records import STEP, read_step, runs

pytestmark = pytest.mark.slow

TRAIN = ("train", "--trials", "3")
PROJECTS, KILLS = 2, 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a training that nothing disturbs left."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("undisturbed"))
    run(folder, *TRAIN)
    with opened(folder) as project:
        check_whole(project)
        assert set(finishes(project).values()) == {1}
        return outcome(project)


@pytest.mark.parametrize("seed", range(PROJECTS))
def test_killed_at_random_moments_the_end_is_the_same(tmp_path, undisturbed, seed):
    folder = e2e_shop.make(tmp_path / "shop")
    chance, killed = random.Random(seed), 0
    for _ in range(KILLS):
        # A moment after one of the next things is done, so that a slow or a quick machine is hit as well.
        things, pause = chance.randint(1, 4), chance.uniform(0.0, 0.6)
        with opened(folder) as project:
            done = things_done(project)
            process = start_fork(folder, *TRAIN)
            while process.poll() is None and things_done(project) < done + things:
                time.sleep(0.01)
        time.sleep(pause)
        kill(process)
        killed += process.returncode == -signal.SIGKILL
        with opened(folder) as project:
            check_whole(project)
    assert killed
    run(folder, *TRAIN)
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == undisturbed
        assert set(finishes(project).values()) == {1}


def test_killed_while_registering_one_version_is_left(tmp_path, undisturbed):
    folder = e2e_shop.make(tmp_path / "shop")
    with opened(folder) as project:
        for number, delay in enumerate((0.0, 0.1, 0.3, 0.6)):
            process = start_fork(folder, *TRAIN)
            wait_for(process, lambda n=number: attempts(project, "register") > n)
            time.sleep(delay)
            kill(process)
            check_whole(project)
            if process.returncode != -signal.SIGKILL:  # it was registered within the delay
                assert number > 0
                break
    run(folder, *TRAIN)
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == undisturbed
        logged = mlflow_runs(project)
        assert len(logged) == 1 + len(undisturbed["trials"])
        assert {one.info.status for one in logged} == {"FINISHED"}


def test_killed_while_the_registry_is_made_it_is_made_anew(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # it keeps no tables of another project
    folder = e2e_shop.make(tmp_path / "shop")
    draft, database = (folder / ".cumulant" / name for name in (".mlflow.db.new", "mlflow.db"))
    for _ in range(2):
        process = start_fork(folder, *TRAIN)
        # Some tables are there, others are not.
        wait_for(process, lambda: draft.exists() and draft.stat().st_size > 100_000)
        kill(process)
        assert draft.exists()
        assert not database.exists()
    run(folder, *TRAIN)
    assert database.exists()
    assert not draft.exists()
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == undisturbed


def test_processes_beside_each_other_on_one_project_do_each_step_once(tmp_path, undisturbed):
    folder = e2e_shop.make(tmp_path / "shop")
    processes = [start_fork(folder, *TRAIN) for _ in range(4)]
    documents = []
    for process in processes:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, out + err
        documents.append(json.loads(out))
    assert {document["model"]["uri"] for document in documents} == {"models:/returns/1"}
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == undisturbed
        found = finishes(project)
        assert set(found.values()) == {1}
        assert len(found) == sum(7 - len(document["reused"]) for document in documents)
        assert len(mlflow_runs(project)) == 1 + len(undisturbed["trials"])


def test_interrupted_it_says_so_and_goes_on(tmp_path, undisturbed):
    folder = e2e_shop.make(tmp_path / "shop")
    with opened(folder) as project:
        process = start_fork(folder, *TRAIN)
        wait_for(process, lambda: trials_finished(project) >= 1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        assert "continue from the last finished step" in err
        assert [run.status for run in runs(project.journal())] == ["interrupted"]

        process = start_fork(folder, *TRAIN)
        wait_for(process, lambda: trials_finished(project) >= 3)
        os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 143, out + err
        assert "continue from the last finished step" in err
        assert [run.status for run in runs(project.journal())] == ["interrupted", "interrupted"]
        # No step is still held, so the next process need not wait for a lease to end.
        steps = [read_step(row) for row in project.journal().rows(STEP)]
        assert "running" not in {step.status for step in steps}
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # nothing that it started lives on

    document = run(folder, *TRAIN)
    assert {"data orders", "data prices", "features"} <= set(document["reused"])
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == undisturbed
        # A trial that was done is not done again.
        assert trials_finished(project) == len(undisturbed["trials"])


def test_a_full_disk_ends_the_training_and_loses_nothing(tmp_path, undisturbed):
    folder = e2e_shop.make(tmp_path / "shop")
    with mounted(folder / ".cumulant", "size=24m") as state:
        for free in (0, 200, 400, 550):
            filled(state, free * 1024)
            document = run(folder, *TRAIN, codes=(4,))
            assert document["error"]["code"] == "storage", document
            assert document["error"]["hint"], document
            (state / "filler").unlink()
            with opened(folder) as project:
                check_whole(project)
        run(folder, *TRAIN)
        with opened(folder) as project:
            check_whole(project)
            assert outcome(project) == undisturbed
            assert set(finishes(project).values()) == {1}


def test_a_read_only_place_is_refused_and_nothing_changes(tmp_path, undisturbed):
    folder = e2e_shop.make(tmp_path / "shop")
    with mounted(folder / ".cumulant", "size=24m") as state:
        remount(state, "ro")
        document = run(folder, *TRAIN, codes=(4,))
        assert document["error"]["code"] == "storage", document
        remount(state, "rw")
        run(folder, *TRAIN)
        remount(state, "ro")
        assert run(folder, *TRAIN, codes=(4,))["error"]["code"] == "storage"
        only_read(folder, tmp_path)
        remount(state, "rw")
        assert len(run(folder, *TRAIN)["reused"]) == 7
        with opened(folder) as project:
            check_whole(project)
            assert outcome(project) == undisturbed


def only_read(folder: Path, elsewhere: Path) -> None:
    """What changes nothing works on a read-only disk, and what would change something says so."""
    (listed,) = run(folder, "models", "list")
    uri = listed["uri"].removeprefix("models:/")
    before = run(folder, "runs", "list")
    shown = run(folder, "models", "show", uri)
    assert shown
    assert [one["status"] for one in before] == ["done"]
    assert run(folder, "events", "list")[-1]["kind"] == "run.finished"
    assert run(folder, "lineage", uri)["model"]["version"] == listed["version"]
    run(folder, "events", "verify")
    run(folder, "report", "--out", str(elsewhere / "page.html"))
    assert "<html" in (elsewhere / "page.html").read_text()
    rows = next((folder / "data" / "orders").glob("*.parquet"))
    run(folder, "predict", str(rows), "--out", str(elsewhere / "answers.csv"))
    assert len((elsewhere / "answers.csv").read_text().splitlines()) > 1
    refused = run(folder, "models", "alias", uri, "fallback", codes=(4,))
    assert refused["error"]["code"] == "storage", refused
    assert run(folder, "runs", "list") == before


@contextmanager
def mounted(place: Path, options: str):
    """A small file system of its own at `place`; the test is left out where that cannot be mounted."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True)


def filled(place: Path, free: int) -> None:
    """Fill the file system at `place` until `free` bytes are left."""
    found = os.statvfs(place)
    with (place / "filler").open("wb") as stream:
        stream.write(bytes(max(0, found.f_bavail * found.f_frsize - free)))


def things_done(project) -> int:
    """Finished steps and trials."""
    return trials_finished(project) + finishes(project).total()


def trials_finished(project) -> int:
    return sum(1 for _ in project.journal().events(kinds=("training.trial_finished",)))

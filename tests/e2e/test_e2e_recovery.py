"""Trainings that are killed, interrupted, run side by side, or run out of disk: what is left, and how they go on."""

import random
import signal
import time
from pathlib import Path

import e2e_shop
import pytest
from e2e_support import attempts, check_whole, finishes, kill, mlflow_runs, opened, outcome, run, start, wait_for

pytestmark = pytest.mark.slow

TRAIN = ("train", "--trials", "3")
PROJECTS, KILLS = 5, 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A training that nothing disturbs: what it left, and the seconds that it took."""
    e2e_shop.make(warm := tmp_path_factory.mktemp("warm"), rows=600)
    run(warm, "train", "--quick", codes=(0, 1))  # compiles the modules
    folder = e2e_shop.make(tmp_path_factory.mktemp("undisturbed"))
    begun = time.monotonic()
    run(folder, *TRAIN)
    seconds = time.monotonic() - begun
    with opened(folder) as project:
        check_whole(project)
        assert set(finishes(project).values()) == {1}
        return outcome(project), seconds


@pytest.mark.parametrize("seed", range(PROJECTS))
def test_killed_at_random_moments_the_end_is_the_same(tmp_path, undisturbed, seed):
    expected, seconds = undisturbed
    folder = e2e_shop.make(tmp_path / "shop")
    moments = [random.Random(seed * KILLS + number).uniform(0.1, 1.0) * seconds for number in range(KILLS)]
    killed = 0
    for moment in moments:
        process = start(folder, *TRAIN)
        time.sleep(moment)
        kill(process)
        killed += process.returncode == -signal.SIGKILL
        with opened(folder) as project:
            check_whole(project)
    assert killed
    run(folder, *TRAIN)
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == expected
        assert set(finishes(project).values()) == {1}


def test_killed_while_registering_one_version_is_left(tmp_path, undisturbed):
    expected, _ = undisturbed
    folder = e2e_shop.make(tmp_path / "shop")
    with opened(folder) as project:
        for number, delay in enumerate((0.0, 0.2, 0.5, 0.8, 1.2, 1.8, 2.5)):
            process = start(folder, *TRAIN)
            waited = wait_for(lambda n=number: attempts(project, "register") > n or process.poll() is not None)
            assert waited
            time.sleep(delay)
            kill(process)
            check_whole(project)
    run(folder, *TRAIN)
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == expected
        runs = mlflow_runs(project)
        assert len(runs) == 1 + len(expected["trials"])
        assert {run.info.status for run in runs} == {"FINISHED"}

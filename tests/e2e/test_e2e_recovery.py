"""Trainings that are killed, interrupted, run side by side, or run out of disk: what is left, and how they go on."""

import random
import time
from pathlib import Path

import e2e_shop
import pytest
from e2e_support import check_whole, finishes, kill, opened, outcome, run, start

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
    for moment in moments:
        process = start(folder, *TRAIN)
        time.sleep(moment)
        kill(process)
        with opened(folder) as project:
            check_whole(project)
    run(folder, *TRAIN)
    with opened(folder) as project:
        check_whole(project)
        assert outcome(project) == expected
        assert set(finishes(project).values()) == {1}

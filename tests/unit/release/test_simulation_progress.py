"""A simulation says how far it is, and about how long the rest takes."""

import msgspec
import pytest

from cumulant.flows.release.simulation.simulate import SimulationProgress, simulate
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.release.spec import ReleaseSpec

BROKEN = {"traffic": {"requests_per_second": 50}, "errors": {"champion": 0.001, "candidate": 0.5}, "quality": None}


def report(times, *, releases, at_once):
    said, moments = [], iter(times)
    progress = SimulationProgress(
        lambda text, share=None: said.append((text, share)), releases, at_once=at_once, clock=lambda: next(moments)
    )
    for count in range(1, len(times)):
        progress.ended(count)
    return said


def test_the_time_left_is_said_when_each_process_has_ended_one() -> None:
    # The clock is read once at the beginning, and at each release from the second on: 30 s for two at a time.
    said = report([0.0, 30.0, 40.0], releases=100, at_once=2)
    assert said[:2] == [("simulate 100 releases, 2 at a time", None), ("1 of 100 releases", 0.01)]
    assert said[2] == ("98 more releases, about 24 min 30 s", None)
    assert said[3] == ("2 of 100 releases, about 24 min 30 s left", 0.02)


def test_a_step_says_the_time_once_and_details_go_on() -> None:
    said = report([0.0, 20.0, 40.0, 60.0], releases=10, at_once=1)
    assert [text for text, share in said if share is None] == [
        "simulate 10 releases, 1 at a time",
        "9 more releases, about 3 min 00 s",
    ]
    assert said[-1] == ("3 of 10 releases, about 2 min 20 s left", 0.3)


def test_little_time_is_not_worth_an_estimate() -> None:
    said = report([0.0, 0.5, 1.0], releases=3, at_once=1)
    assert [text for text, _ in said] == ["simulate 3 releases, 1 at a time", "1 of 3 releases", "2 of 3 releases"]


@pytest.mark.slow
def test_a_simulation_reports_each_release_whatever_the_processes() -> None:
    world = msgspec.convert(BROKEN, ReleaseWorld)
    shares: dict[int, list[float | None]] = {1: [], 2: []}

    def simulated(processes):
        def progress(text, share=None):
            shares[processes].append(share)

        return simulate(world, ReleaseSpec(), releases=5, processes=processes, progress=progress)

    assert simulated(1) == simulated(2)
    for said in shares.values():
        assert [share for share in said if share is not None] == [0.2, 0.4, 0.6, 0.8, 1.0]

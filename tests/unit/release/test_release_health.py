"""The quick check where the champion fails in bursts: what such bursts do by chance rolls nothing back."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from releases import checked, hard_failure, policy_with, release
from scipy import stats

from cumulant.release.decide import build_failure_reference
from cumulant.release.evidence.accumulate import read_memory, with_history
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.health import ArmHealth, FailureReference, RecentHealth, find_hard_failure
from cumulant.release.state import Release
from cumulant.statistics.sequential.arrays import Floats

RATE, LOOKS, REQUESTS = 0.005, 8640, 2000
CHAMPION = ArmHealth(requests=900, failures=4)

CEILINGS = policy_with().ceilings


def health(failures: int) -> RecentHealth:
    return RecentHealth(candidate=ArmHealth(requests=100, failures=failures), champion=CHAMPION)


def with_failures(bad: Floats, requests: Floats) -> Release:
    """A running release after a past of its champion with these failures of these requests."""
    counts = np.stack([bad, 0 * bad, 0 * bad], axis=1)
    history = ChampionHistory(requests=requests, bad=counts, slow_us=None)
    return with_history(release(status="running"), history)


def with_bursts(now: Release, cv: float, looks: int = LOOKS) -> Release:
    """The release after a day of its champion in which each look of 10 s had a gamma burst of its own."""
    draw = np.random.default_rng(1)
    factors = draw.gamma(cv**-2, cv**2, looks) if cv else np.ones(looks)
    bad = draw.binomial(REQUESTS, np.minimum(RATE * factors, 1))
    counts = np.stack([bad, 0 * bad, 0 * bad], axis=1).astype(np.float64)
    history = ChampionHistory(requests=np.full(looks, float(REQUESTS)), bad=counts, slow_us=None)
    return with_history(now, history)


@pytest.mark.parametrize("cv", [1.0, 2.0, 3.0, 4.0])
def test_the_shape_of_bursts_is_read_from_the_champions_past(cv: float) -> None:
    known = read_memory(with_bursts(release(), cv)).champion
    assert known.burst_shape("errors") == pytest.approx(cv**-2, rel=0.3)


def test_chance_and_a_short_past_are_no_bursts() -> None:
    assert read_memory(with_bursts(release(), 0)).champion.burst_shape("errors") > 100
    assert read_memory(with_bursts(release(), 3, looks=11)).champion.burst_shape("errors") == np.inf
    assert read_memory(release()).champion.burst_shape("errors") == np.inf


def test_bursts_like_the_champions_roll_back_no_oftener_than_the_level_says() -> None:
    draw, level, checks = np.random.default_rng(2), 1e-4, 200_000
    failures = draw.binomial(100, np.minimum(RATE * draw.gamma(1 / 9, 9, checks), 1))
    shape = read_memory(with_bursts(release(), 3)).champion.burst_shape("errors")

    def rolled_back(reference: FailureReference) -> int:
        return sum(
            find_hard_failure(health(int(one)), CEILINGS, reference) is not None for one in failures[failures > 20]
        )

    assert rolled_back(FailureReference(usual=RATE, shape=shape, level=level)) <= stats.binom.isf(0.001, checks, level)
    assert rolled_back(FailureReference(usual=RATE, level=level)) > 3 * checks * level, "by Fisher's test alone"


def test_a_candidate_that_fails_all_requests_is_rolled_back_at_once_all_the_same() -> None:
    bursty, calm = (with_bursts(release(status="running"), cv) for cv in (3, 0))
    found = {one: [checked(now, health(one)).status for now in (bursty, calm)] for one in (30, 100)}
    assert found == {30: ["running", "rolled_back"], 100: ["rolled_back", "rolled_back"]}


def test_a_check_within_a_long_look_may_hold_a_stronger_burst_than_the_look() -> None:
    spec = policy_with(look="10s")
    short = with_bursts(release(spec, status="running"), 2)
    long = msgspec.structs.replace(short, policy=policy_with(look="60s"))
    assert build_failure_reference(long).level < build_failure_reference(short).level
    assert [hard_failure(now, health(45)) is not None for now in (short, long)] == [True, False]


@pytest.mark.parametrize("looks", [360, 8640])
@pytest.mark.parametrize(("share", "long"), [(0.4, 6), (0.2, 6), (0.1, 30)])
def test_one_outage_of_the_champion_hides_no_candidate_that_fails_everything(
    looks: int, share: float, long: int
) -> None:
    bad = np.random.default_rng(3).binomial(500, 0.002, looks).astype(np.float64)
    bad[looks // 2 : looks // 2 + long] = 500 * share
    assert checked(with_failures(bad, np.full(looks, 500.0)), health(100)).status == "rolled_back"


def test_uneven_traffic_hides_no_candidate_that_fails_everything() -> None:
    requests = np.where(np.arange(8640) % 2, 1.0, 3.0)
    bad = np.random.default_rng(4).binomial(requests.astype(int), 0.01).astype(np.float64)
    now = with_failures(bad, requests)
    few = RecentHealth(candidate=ArmHealth(requests=25, failures=25), champion=ArmHealth(requests=225, failures=2))
    assert checked(now, few).status == "rolled_back"

"""A release's one alpha, and how long it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from cumulant.statistics.sequential.power import (
    ArmTraffic,
    _steps_until,
    harm_is_seen,
    harm_seconds,
    not_worse_looks,
    not_worse_seconds,
)
from cumulant.statistics.sequential.rates import Rates
from cumulant.statistics.sequential.simulated import (
    choose_design,
    decide_often,
    harm_test,
    not_worse_test,
    simulate_counts,
)
from cumulant.statistics.sequential.stages import stages


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0.01, 5), st.floats(-6, 0), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_capitals_are_enough_at_the_step_that_is_found_and_not_before(others, fastest, unit, alpha):
    grows = np.array([*others, fastest]) * 10**unit
    needed = math.log(len(grows) / alpha)
    steps = _steps_until(grows, needed)
    assert logsumexp(steps * grows) == pytest.approx(needed, rel=1e-12)
    assert logsumexp(0.999 * steps * grows) < needed


def test_faults_are_refused():
    for call in (
        lambda: stages([]),
        lambda: stages([0.0], spent=0),
        lambda: ArmTraffic(champion=1, candidate=0, seconds=1),
        lambda: harm_is_seen(ArmTraffic(champion=1, candidate=1, seconds=1), rate=0.5, ratio=3),
    ):
        with pytest.raises(ValueError):
            call()


def test_stages_spend_their_cash_and_stay_an_e_process():
    e = [0.3, 8.0, 2.0]
    closed = 0.7 * 0.3 * 8 * 2 + 0.21 * 8 * 2 + 0.063 * 2 + 0.027
    assert float(np.exp(stages(np.log(e)))) == pytest.approx(closed, abs=1e-9)
    assert float(stages(np.log(e), spent=1.0)) == pytest.approx(math.log(4.8))
    fair = np.array([[a, b] for a in (0.5, 1.5) for b in (0.1, 1.9)])  # each of mean 1
    assert np.exp(stages(list(np.log(fair).T))).mean() == pytest.approx(1)


def decided_by_look(counts, test):
    """The look at which each release decides, by all tests at all looks."""
    releases = counts.bad.shape[1]
    first, state = np.full(releases, math.inf), Rates.start(choose_design(counts), batch=(releases,))
    for look in range(len(counts.bad)):
        arms = (one[look] for one in (counts.requests, counts.bad, counts.candidate_requests, counts.candidate_bad))
        names = ("champion_requests", "champion_bad", "candidate_requests", "candidate_bad")
        state = state.add(**dict(zip(names, arms, strict=True)))
        first[np.isinf(first) & (test.evidence(state) >= test.bound)] = look + 1
    return first.tolist()


def looks_of_arms(traffic, test, *, rate, ratio=1.0, looks, releases, seed=0):
    """The look at which each simulated release decides, by all tests at all looks."""
    means = (traffic.champion, traffic.candidate)
    return decided_by_look(simulate_counts(means, (rate, rate * ratio), shape=(looks, releases), seed=seed), test)


def look_of(looks, share):
    """The look at which the `share` of the releases has decided."""
    return float(np.quantile(looks, share, method="inverted_cdf"))


@pytest.mark.parametrize("champion", [300, 3000])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.04])
def test_the_looks_until_most_releases_are_fine_are_about_those_of_all_tests(champion, margin):
    traffic = ArmTraffic(champion=champion, candidate=300, seconds=10)
    what = {"rate": 0.01, "looks": 30, "releases": 60, "seed": 3}
    exact = look_of(looks_of_arms(traffic, not_worse_test(0.05, margin), **what), 0.8)
    assert exact <= not_worse_looks(traffic, **what, margin=margin) <= exact + 2


def test_a_margin_that_is_not_shown_in_time_has_no_look():
    traffic = ArmTraffic(champion=300, candidate=100, seconds=10)
    assert not_worse_looks(traffic, rate=0.01, margin=0.002, looks=12, releases=60) is None
    assert not_worse_looks(traffic, rate=0.01, ratio=3, margin=0.01, looks=12, releases=60) is None


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_the_usual_times_are_those_at_which_half_of_the_releases_begin_to_decide(share):
    """Without bursts; the tests, which know of bursts, take up to a few times as long."""
    traffic = ArmTraffic(champion=2000 * (1 - share), candidate=2000 * share, seconds=1)
    what = {"rate": 0.02, "looks": 60, "releases": 40}
    harm, fine = harm_seconds(traffic, rate=0.02, ratio=2), not_worse_seconds(traffic, rate=0.02, margin=0.02)
    seen = look_of(looks_of_arms(traffic, harm_test(0.05), ratio=2, **what), 0.5)
    shown = look_of(looks_of_arms(traffic, not_worse_test(0.05, 0.02), **what), 0.5)
    assert harm / 2 < seen < 5 * harm + 2
    assert fine / 2 < shown < 5 * fine + 2
    # A rate of the edge of floats is none: the candidate alone gives evidence, `margin` a request.
    for rate in (0.0, 5e-324):
        seconds = not_worse_seconds(traffic, rate=rate, margin=0.02)
        assert seconds == pytest.approx(math.log(1 / 0.05) / (2000 * share * 0.02))


@pytest.mark.parametrize("wanted", [0.05, 0.3, 0.5, 0.8, 1 - 1e-9])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0, 3.0, 6.0])
def test_a_harm_is_seen_where_enough_releases_decide(ratio, wanted):
    traffic = ArmTraffic(champion=300, candidate=100, seconds=10)
    what = {"rate": 0.01, "ratio": ratio, "looks": 12, "releases": 60, "seed": 3}
    decided = np.isfinite(looks_of_arms(traffic, harm_test(0.05), **what)).mean()
    assert harm_is_seen(traffic, **what, wanted=wanted) == (decided >= wanted)


def test_releases_without_a_bad_event_decide_nothing():
    traffic = ArmTraffic(champion=0.5, candidate=0.1, seconds=10)
    what = {"rate": 1e-5, "looks": 3, "releases": 10}
    assert not harm_is_seen(traffic, ratio=2, **what)
    assert not_worse_looks(traffic, margin=0.001, **what) is None


def assert_as_many_decide(counts, test):
    """`decide_often` of releases that fit into one group is exact; returns how many of them decide."""
    releases = counts.bad.shape[1]
    decided = int(np.isfinite(decided_by_look(counts, test)).sum())
    assert decide_often(counts, test, decided / releases)
    assert decided == releases or not decide_often(counts, test, (decided + 1) / releases)
    return decided


@pytest.mark.parametrize("test", [harm_test(0.05), not_worse_test(0.05, 0.04)])
def test_as_many_releases_decide_as_by_a_test_look_by_look(test):
    """The time-savers change nothing: no state, no test that is left out."""
    decided = 0
    for seed, ratio in enumerate((0.3, 1.0, 2.0, 5.0)):
        counts = simulate_counts((200, 40), (0.02, 0.02 * ratio), shape=(15, 25), seed=seed)
        decided += assert_as_many_decide(counts, test)
    assert decided > 10


@pytest.mark.parametrize(
    ("requests", "rate", "ratio", "test", "looks"),
    [
        ((167, 1096), 0.425, 1.25, harm_test(0.01), 40),  # many events between two points of the grid
        ((3, 200), 0.45, 1.5, harm_test(0.3), 60),  # at the end of the grid
        ((50, 8), 0.45, 2.0, harm_test(0.01), 40),
    ],
)
def test_harm_at_high_rates_is_decided_as_look_by_look(requests, rate, ratio, test, looks):
    counts = simulate_counts(requests, (rate, rate * ratio), shape=(looks, 25), seed=87730)
    assert assert_as_many_decide(counts, test) > 0

"""Intervals hold what they promise, pairs cancel what they share, words follow their order."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance
from scipy.stats import binom

from cumulant.statistics import (
    METRICS,
    Estimate,
    Rows,
    cluster_codes,
    difference,
    draw,
    estimate,
    interval,
    jensen_shannon,
    population_stability,
    total_variation,
    verdict,
    wasserstein,
)
from cumulant.statistics.bootstrap import MOST_GROUPS, limit_clusters


def days(generator, *, clusters, size, spread):
    """Rows whose truth depends on the day: a chance for each day, shared by its rows."""
    chance = np.clip(generator.normal(0.3, spread, clusters), 0.02, 0.98)
    cluster = np.repeat(np.arange(clusters), size)
    truth = (generator.random(clusters * size) < chance[cluster]).astype(float)
    return truth, cluster, chance


@pytest.mark.parametrize("clusters", [12, 40])
def test_intervals_over_days_cover_and_those_over_rows_do_not(clusters):
    """200 simulated sets, intervals of 95%: within the 99.9% bounds of a binomial, less 1.5 points for few days."""
    generator, runs, every = np.random.default_rng(7), 200, 4
    over_days = over_rows = 0
    for seed in range(runs):
        truth, cluster, _ = days(generator, clusters=clusters, size=50, spread=0.12)
        expected = 0.3 * 0.7  # the mean squared error of always saying 0.3, as E[(t - .3)^2] = .3 - .6*.3 + .09
        prediction = np.full(len(truth), 0.3)
        by_day = estimate(
            METRICS["brier"], Rows(truth=truth, prediction=prediction, cluster=cluster), resamples=300, seed=seed
        )
        over_days += by_day.low <= expected <= by_day.high
        if seed % every == 0:
            by_row = estimate(METRICS["brier"], Rows(truth=truth, prediction=prediction), resamples=100, seed=seed)
            over_rows += by_row.low <= expected <= by_row.high
    low, high = binom.ppf([0.0005, 0.9995], runs, 0.95)
    assert low - 0.015 * runs <= over_days <= high
    assert over_rows < 0.85 * runs / every  # what forgetting the days would promise


def test_intervals_of_average_precision_cover():
    """200 sets of 30 days: the interval holds the value of a very large sample in 90% to 99% of them."""
    generator = np.random.default_rng(3)

    def sample(clusters):
        cluster = np.repeat(np.arange(clusters), 80)
        shift = generator.normal(0, 0.5, clusters)[cluster]
        truth = (generator.random(len(cluster)) < 0.08).astype(float)
        return Rows(truth=truth, prediction=generator.normal(1.5 * truth + shift), cluster=cluster)

    true_value = METRICS["average_precision"].value(sample(6000))
    runs = 200
    covered = sum(
        found.low <= true_value <= found.high
        for found in (estimate(METRICS["average_precision"], sample(30), resamples=300, seed=s) for s in range(runs))
    )
    assert 0.90 * runs <= covered <= 0.99 * runs


def test_a_paired_difference_is_surer_than_two_intervals():
    generator = np.random.default_rng(0)
    truth, cluster, chance = days(generator, clusters=30, size=200, spread=0.15)
    good = np.clip(chance[cluster] + generator.normal(0, 0.02, len(truth)), 0.01, 0.99)
    worse = np.clip(good + generator.normal(0, 0.08, len(truth)), 0.01, 0.99)
    ours, theirs = (Rows(truth=truth, prediction=p, cluster=cluster) for p in (good, worse))
    found = difference(METRICS["log_loss"], ours, theirs)
    assert found.low > 0  # better, though a lower log loss
    alone = [estimate(METRICS["log_loss"], rows) for rows in (ours, theirs)]
    assert alone[0].high > alone[1].low  # the two intervals overlap
    back = difference(METRICS["log_loss"], theirs, ours)
    assert back.value == pytest.approx(-found.value)
    assert back.high == pytest.approx(-found.low)
    same = difference(METRICS["roc_auc"], ours, ours)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="same rows"):
        difference(METRICS["brier"], ours, Rows(truth=1 - truth, prediction=good))


def test_an_interval_is_missing_where_it_cannot_be_known():
    few = Rows(truth=np.array([0.0, 1.0]), prediction=np.array([0.2, 0.7]), cluster=np.zeros(2, dtype=np.int64))
    found = estimate(METRICS["brier"], few)
    assert found.value is not None
    assert found.low is None
    assert found.high is None
    assert found.clusters == 1
    assert estimate(METRICS["brier"], few.where(np.zeros(2, dtype=bool))).value is None
    none = Rows(truth=np.zeros(9), prediction=np.zeros(9))
    assert estimate(METRICS["average_precision"], none) == Estimate(value=None, clusters=9)
    assert np.isnan(interval(np.array([np.nan, np.nan, 1.0]), clusters=5)).all()


def test_estimates_repeat_and_cross_json():
    generator = np.random.default_rng(1)
    truth, cluster, chance = days(generator, clusters=20, size=30, spread=0.1)
    rows = Rows(truth=truth, prediction=chance[cluster], cluster=cluster)
    first = estimate(METRICS["average_precision"], rows, seed=4)
    assert first == estimate(METRICS["average_precision"], rows, seed=4)
    assert msgspec.json.decode(msgspec.json.encode(first), type=Estimate) == first


def test_a_calibration_interval_holds_its_value_and_is_not_negative():
    generator = np.random.default_rng(5)
    chance = generator.random(800)
    rows = Rows(truth=(generator.random(800) < chance).astype(float), prediction=chance)
    found = estimate(METRICS["calibration_error"], rows)
    assert 0 <= found.low <= found.value <= found.high


def test_no_interval_holds_values_that_the_metric_cannot_have():
    generator = np.random.default_rng(4)
    truth = np.r_[np.ones(6), np.zeros(24)]
    wide = False
    for _ in range(20):
        score = np.clip(0.3 * truth + generator.normal(0.4, 0.2, 30), 0.01, 0.99)
        rows = Rows(truth=truth, prediction=score, cluster=np.arange(30) % 5, decision=score >= 0.5)
        for name in ("precision", "recall", "average_precision", "roc_auc", "accuracy", "log_loss", "brier"):
            found = estimate(METRICS[name], rows, resamples=100)
            if found.low is None:
                continue
            assert METRICS[name].least <= found.low <= found.value <= found.high <= METRICS[name].most
            wide = wide or 1.0 in {found.low, found.high}
    assert wide


def test_draws_count_every_cluster_and_many_clusters_are_gathered_whole():
    weights = draw(7, resamples=50, seed=1)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    cluster = np.random.default_rng(0).integers(0, 3 * MOST_GROUPS, 20_000)
    rows = Rows(truth=np.zeros(20_000), prediction=np.zeros(20_000), cluster=cluster_codes(cluster))
    grouped, count = limit_clusters(rows)
    assert count == len(np.unique(cluster))
    assert grouped.clusters()[1] == MOST_GROUPS
    assert len(np.unique(np.stack([rows.cluster, grouped.cluster]), axis=1).T) == count  # type: ignore[list-item]  # one group for each cluster


bounds = st.one_of(st.none(), st.floats(-1, 1))


@given(bounds, bounds, st.floats(0, 1))
def test_verdict_words_in_their_order(low, high, margin):
    if low is not None and high is not None and low > high:
        low, high = high, low
    word = verdict(low, high, margin=margin)
    if low is not None and low > 0:
        assert word == "better"
    elif high is not None and high < -margin:
        assert word == "worse"
    elif low is not None and low > -margin:
        assert word == "not_worse"
    else:
        assert word == "cannot_tell"


def test_verdict_of_nothing_and_of_a_negative_margin():
    assert verdict(float("nan"), float("nan")) == "cannot_tell"
    assert verdict(0.0, 0.0) == "cannot_tell"  # equal is not better, and no margin allows less
    assert verdict(0.0, 0.0, margin=0.01) == "not_worse"
    with pytest.raises(ValueError, match="negative"):
        verdict(0.1, 0.2, margin=-0.1)


counts = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any).map(lambda c: np.array(c, dtype=float))


@given(counts, counts)
def test_distances_against_scipy(first, second):
    expected = distance.jensenshannon(first / first.sum(), second / second.sum(), base=2)
    assert jensen_shannon(first, second) == pytest.approx(np.nan_to_num(expected), abs=1e-7)
    assert 0 <= total_variation(first, second) <= 1 + 1e-12
    assert population_stability(first, second) >= -1e-12
    assert total_variation(first, 3 * first) == pytest.approx(0)


def test_wasserstein_is_in_standard_deviations():
    generator = np.random.default_rng(0)
    sample = generator.normal(5, 3, 20_000)
    assert wasserstein(sample, sample + 1.5) == pytest.approx(0.5, rel=0.02)
    assert wasserstein(np.ones(3), np.ones(2)) == 0
    assert wasserstein(np.ones(3), np.zeros(2)) == float("inf")
    with pytest.raises(ValueError, match="at least one row"):
        total_variation(np.zeros(2), np.ones(2))


def test_the_public_face_is_light_and_complete():
    program = (
        "import sys, json, cumulant; base = set(sys.modules); import cumulant.statistics as s;"
        "light = sorted(m for m in sys.modules if m.startswith('numpy'));"
        "[getattr(s, name) for name in s.__all__];"
        "print(json.dumps([light, [m for m in set(sys.modules) - base if m.startswith(('cumulant.core', 'msgspec'))]]))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == [[], []]


@pytest.mark.parametrize("clusters", [3, 5, 7])
def test_intervals_over_a_few_skewed_days_cover(clusters):
    """Days' losses are exponential: samples of a few days often hold none of the long tail."""
    generator, runs, size, covered = np.random.default_rng(11), 400, 20, 0
    cluster = np.repeat(np.arange(clusters), size)
    for seed in range(runs):
        loss = 1 + np.repeat(generator.exponential(0.2, clusters), size)
        rows = Rows(truth=np.zeros(len(loss)), prediction=loss, cluster=cluster)
        found = estimate(METRICS["mae"], rows, resamples=200, seed=seed)
        covered += found.low <= 1.2 <= found.high
    assert covered >= 0.93 * runs


def test_metrics_share_the_draws_of_their_clusters():
    weights = draw(50, resamples=20, seed=3)
    assert draw(50, resamples=20, seed=3) is weights
    assert not np.array_equal(draw(50, resamples=20, seed=4), weights)
    again = np.random.default_rng(3).multinomial(50, np.full(50, 1 / 50), size=20)
    assert np.array_equal(draw(50, resamples=20, seed=3), again)
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 1

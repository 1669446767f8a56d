"""Means, quantiles, shares: closed forms written a second time, seeded coverage, storage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import betaln, gammaln
from scipy.stats import beta

from cumulant.statistics.sequential.means import (
    Bernstein,
    Betting,
    Paired,
    asymptotic_radius,
    best_rho,
    difference,
    hedged_capital,
    hedged_interval,
    normal_mixture_radius,
)
from cumulant.statistics.sequential.quantiles import Quantiles, histogram, howard_ramdas_ranks, quantile_difference
from cumulant.statistics.sequential.share import Shares

UNIT = st.floats(0, 1, allow_nan=False)


def lower_bound(hits, of):
    return 0.0 if not hits else float(beta.ppf(0.001, hits, of - hits + 1))


def bernstein_by_hand(x, alpha):
    """Waudby-Smith and Ramdas 2023, theorem 2 with (25) and (26), value by value."""
    sums = [0.0, 0.0, 0.0]
    mean, variance = 0.5, 0.25
    for t, value in enumerate(x, 1):
        bet = min(math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(1 + t))), 0.5)
        psi = (-math.log(1 - bet) - bet) / 4
        sums = [sums[0] + bet, sums[1] + bet * value, sums[2] + 4 * (value - mean) ** 2 * psi]
        mean = (0.5 + sum(x[:t])) / (t + 1)
        means = [(0.5 + sum(x[:i])) / (i + 1) for i in range(1, t + 1)]
        variance = (0.25 + sum((v - m) ** 2 for v, m in zip(x[:t], means, strict=True))) / (t + 1)
    return sums[1] / sums[0], (math.log(2 / alpha) + sums[2]) / sums[0]


@given(st.lists(UNIT, min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_bernstein_is_the_published_sequence(x):
    state = Bernstein.start(0.05)
    for value in x:
        state = Bernstein.from_json(json.loads(json.dumps(state.add(value).to_json())))
    middle, radius = bernstein_by_hand(x, 0.05)
    low, high = state.interval()
    assert float(low) == pytest.approx(np.clip(middle - radius, 0, 1), abs=1e-6)
    assert float(high) == pytest.approx(np.clip(middle + radius, 0, 1), abs=1e-6)


def test_bernstein_covers_at_all_moments_together():
    rng = np.random.default_rng(0)
    state, kept = Bernstein.start(0.05, batch=(500,)), np.ones(500, bool)
    for _ in range(300):
        state = state.add(rng.beta(1, 9, 500))
        low, high = state.interval()
        kept &= (low <= 0.1) & (high >= 0.1)
    assert lower_bound(int((~kept).sum()), 500) <= 0.05
    assert float(np.median(high - low)) < 0.15


def test_before_any_value_a_mean_can_be_anything():
    low, high = Bernstein.start(batch=(2,)).interval()
    assert low.tolist() == [0, 0]
    assert high.tolist() == [1, 1]


def test_bets_on_coins_are_the_mean_of_products():
    state = Betting.start(0.3, bets=5).add([1, 0, 1, 1])
    bets = np.geomspace(0.003, 3.0, 5)
    assert float(np.exp(state.log_evidence())) == pytest.approx(
        np.mean((1 + 0.7 * bets) ** 3 * (1 - 0.3 * bets)), rel=1e-6
    )


def test_the_expected_capital_is_one_on_the_boundary_by_enumeration():
    total = 0.0
    for bits in np.ndindex(2, 2, 2, 2, 2):
        chance = np.prod([0.3 if b else 0.7 for b in bits])
        total += chance * float(np.exp(Betting.start(0.3).add(bits).log_evidence()))
    assert total == pytest.approx(1, abs=1e-9)


@given(st.lists(UNIT, min_size=2, max_size=20), st.integers(1, 19))
@settings(max_examples=40, deadline=None)
def test_capital_does_not_depend_on_how_values_are_batched(x, cut):
    whole = Betting.start(0.4).add(x)
    parts = Betting.from_json(Betting.start(0.4).add(x[:cut]).to_json()).add(x[cut:])
    assert np.allclose(whole.capital, parts.capital, atol=1e-9)


def paired_releases(mean, releases=200, pairs=4000):
    x = np.random.default_rng(3).normal(mean, 0.1, (releases, pairs)).clip(-1, 1)
    state, high = Paired.start(margin=0.02, batch=(releases,)), np.full((2, releases), -np.inf)
    for part in np.split(x, 20, axis=1):
        state = state.add(part)
        high = np.maximum(high, [state.log_harm(), state.log_not_worse()])
    return (high >= math.log(20)).sum(1), state


def test_paired_losses_equal_at_the_margin_and_between():
    (harm, fine), state = paired_releases(0.0)
    assert lower_bound(int(harm), 200) <= 0.05
    assert fine > 180
    (harm, fine), _ = paired_releases(0.02)
    assert lower_bound(int(fine), 200) <= 0.05
    assert harm > 180
    stored = Paired.from_json(json.loads(json.dumps(state.to_json())))
    assert np.array_equal(stored.log_harm(), state.log_harm())


def hedged_by_hand(x, alpha, place):
    """Largest capital at one place: theorem 3, value by value."""
    up = down = 1.0
    mean_sum, squares, highest = 0.5, 0.25, 0.0
    for t, value in enumerate(x, 1):
        bet = math.sqrt(2 * math.log(2 / alpha) / ((squares / t) * t * math.log(1 + t)))
        up *= 1 + min(bet, 0.5 / place) * (value - place)
        down *= 1 - min(bet, 0.5 / (1 - place)) * (value - place)
        mean_sum += value
        squares += (value - mean_sum / (t + 1)) ** 2
        highest = max(up, down) / 2
    return highest


@pytest.mark.parametrize(
    ("mean", "published"),
    [
        (0.2, [0.5247524752, 3.277101739, 36.61277638, 568.3282055]),
        (0.3, [0.5286421499, 0.4395590826, 0.3408988355, 0.2646042031]),
        (0.4, [0.5750825083, 0.9635944478, 3.580118715, 29.48774931]),
        (0.5, [0.6400990099, 2.628758285, 72.37511562, 12154.05598]),
    ],
)
def test_hedged_capital_is_that_of_the_authors_program(mean, published):
    """After 1, 10, 30 and 60 values: `betting_mart` of gostevehoward/confseq at commit 70b1ef30, alpha 0.05."""
    x = (37 * np.arange(1, 61) % 101) / 101 * 0.6
    capital = np.exp(hedged_capital(x, [mean], alpha=0.05)[[0, 9, 29, 59], 0])
    assert capital.tolist() == pytest.approx(published, rel=1e-6)
    assert hedged_by_hand(x, 0.05, mean) == pytest.approx(capital[-1], rel=1e-6)


def test_hedged_capital_is_the_published_one_and_tighter_than_bernstein():
    x = np.random.default_rng(4).beta(2, 6, 300)
    low, high = hedged_interval(x, alpha=0.05, points=1000)
    for place in (low + 0.0005, high - 0.0005):
        assert hedged_by_hand(x, 0.05, place) < 20
    for place in (low - 0.0005, high + 0.0005):
        assert hedged_by_hand(x, 0.05, place) >= 20
    state = Bernstein.start()
    for value in x:
        state = state.add(value)
    assert high - low < float(np.subtract(*state.interval()[::-1]))
    running = hedged_interval(x, points=1000, ends="running")
    assert running[0] >= low
    assert running[1] <= high
    with pytest.raises(ValueError, match="at least one value"):
        hedged_interval([])


@given(st.floats(0.01, 1e5), st.floats(0.001, 0.3), st.floats(0.1, 1e3))
@settings(max_examples=50, deadline=None)
def test_the_normal_mixture_is_where_its_martingale_reaches_one_over_alpha(variance, alpha, rho):
    s = float(normal_mixture_radius(variance, alpha=alpha, rho=rho))
    martingale = 0.5 * math.log(rho / (variance + rho)) + s**2 / (2 * (variance + rho))
    assert martingale == pytest.approx(math.log(1 / alpha), abs=1e-6)


def test_best_rho_minimises():
    found = minimize_scalar(
        lambda r: float(normal_mixture_radius(50.0, alpha=0.05, rho=r)), bounds=(0.1, 100), method="bounded"
    )
    assert best_rho(50.0, alpha=0.05) == pytest.approx(found.x, rel=1e-3)


def test_the_normal_mixture_has_the_authors_values():
    """Target of `TestTwoSidedNormalMixture` in gostevehoward/confseq: bound(100, log 20) at its rho."""
    assert float(normal_mixture_radius(100, alpha=0.05, rho=12.60056)) == pytest.approx(30.35209, abs=1e-5)


def test_the_asymptotic_radius_is_the_published_one():
    n, rho, alpha = 137, 0.3, 0.05
    grown = n * rho * rho + 1
    closed = 1.7 * math.sqrt(2 * grown / (n**2 * rho**2) * math.log(math.sqrt(grown) / alpha))
    assert float(asymptotic_radius(n, 1.7, alpha=alpha, rho=rho)) == pytest.approx(closed, abs=1e-9)
    assert float(asymptotic_radius(n, 1.0, alpha=alpha, rho=rho)) == pytest.approx(
        float(normal_mixture_radius(n, alpha=alpha, rho=rho**-2)) / n, abs=1e-9
    )


def test_an_interval_of_a_difference_takes_opposite_ends():
    assert difference((np.array(3.0), np.array(5.0)), (np.array(1.0), np.array(2.0))) == (1.0, 4.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Bernstein.start(1.0),
        lambda: Bernstein.start().add(1.1),
        lambda: Betting.start(0.0),
        lambda: Betting.start(0.5).add([math.nan]),
        lambda: Paired.start(margin=2),
        lambda: Paired.start(margin=0.1).add([1.5]),
        lambda: normal_mixture_radius(1, rho=0),
        lambda: asymptotic_radius(1, 1, alpha=0.05, rho=0),
        lambda: Quantiles.start([2, 1]),
        lambda: Quantiles.start([1, 2]).add([0, 0, 0]),
        lambda: Quantiles.start([1, 2]).add([1, 0]),
        lambda: Quantiles.start([1, 2]).interval(1),
        lambda: howard_ramdas_ranks(0, 0.5),
        lambda: Shares.start([0.5, 0.6]),
        lambda: Shares.start([0.5, 0.5]).add([-1, 0]),
    ],
)
def test_what_would_break_the_guarantee_is_refused(call):
    with pytest.raises(ValueError):
        call()


# -- quantiles

EDGES = np.geomspace(0.01, 10, 120)


def latencies(rng, releases, looks, factor=1.0, keep=0.0):
    """Lognormal with a level that wanders from look to look, 100 a block; its true quantiles are those of the whole."""
    z = rng.normal(size=(looks, releases))
    for i in range(1, looks):
        z[i] = keep * z[i - 1] + math.sqrt(1 - keep**2) * z[i]
    return factor * np.exp(0.1 * z[..., None] + 0.5 * rng.normal(size=(looks, releases, 100)) - 2)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_quantiles_cover_at_all_looks_though_blocks_are_clustered(quantile):
    from scipy.stats import norm

    true = math.exp(-2 + math.hypot(0.1, 0.5) * norm.ppf(quantile))
    state, kept = Quantiles.start(EDGES, batch=(150,)), np.ones(150, bool)
    for block in latencies(np.random.default_rng(5), 150, 80):
        state = state.add(histogram(block, EDGES))
        low, high = state.interval(quantile)
        kept &= (low <= true) & (true <= high)
    assert lower_bound(int((~kept).sum()), 150) <= 0.05
    assert np.isfinite(low).all()
    assert Quantiles.from_json(json.loads(json.dumps(state.to_json()))).interval(quantile)[0].tolist() == low.tolist()


def test_a_doubled_median_is_seen_and_an_equal_one_is_not():
    rng = np.random.default_rng(6)
    for factor, seen in ((1.0, 0), (2.0, 40)):
        arms = [Quantiles.start(EDGES, alpha=0.025, batch=(40,)) for _ in range(2)]
        for ours, theirs in zip(latencies(rng, 40, 80), latencies(rng, 40, 80, factor), strict=True):
            arms = [arms[0].add(histogram(ours, EDGES)), arms[1].add(histogram(theirs, EDGES))]
        low, _ = quantile_difference(arms[1], arms[0], 0.5)
        assert (low > 0).sum() == seen


def test_a_histogram_counts_a_value_on_an_edge_below_it():
    assert histogram([[0.5, 1, 1.5, 2, 9]], [1, 2]).tolist() == [[2, 2, 1]]


def test_ranks_are_the_published_ones_and_cover():
    low, high = howard_ramdas_ranks(1000, 0.9, alpha=0.05)
    ell = (1.4 * math.log(math.log(2100)) + math.log(200)) / 1000
    assert high - 0.9 == pytest.approx(1.5 * math.sqrt(0.09 * ell) + 0.8 * ell, abs=1e-9)
    assert low == pytest.approx(1.8 - high, abs=1e-9)
    counts = np.cumsum(np.random.default_rng(7).random((400, 3000)) < 0.9, axis=1)
    n = np.arange(1, 3001)
    ends = np.array([howard_ramdas_ranks(int(i), 0.9) for i in n])
    missed = ((counts / n < ends[:, 0]) | (counts / n > ends[:, 1])).any(1)
    assert lower_bound(int(missed.sum()), 400) <= 0.05


# -- shares


def test_two_arms_are_the_beta_binomial():
    state = Shares.start([0.9, 0.1], strength=50).add([830, 130])
    closed = betaln(45 + 830, 5 + 130) - betaln(45, 5) - 830 * math.log(0.9) - 130 * math.log(0.1)
    assert float(state.log_mismatch()) == pytest.approx(closed, abs=1e-6)


def test_the_beta_binomial_has_the_authors_values():
    """Targets of `TestTwoSidedBetaBinomialMixture` in gostevehoward/confseq (Howard et al. 2021, proposition 7).

    There g = 0.2 and h = 0.8 are the sizes of the two outcomes; intrinsic time 100 is 100 / (g h) = 625 units, and the sum
    s has s + 625 g units of the rarer outcome. Its rho is 12.60056, less g h; here it is counted in units.
    """
    g, h = 0.2, 0.8
    start = Shares.start([h, g], strength=(12.60056 - g * h) / (g * h))
    assert float(start.add([490, 135]).log_mismatch()) == pytest.approx(-0.6941012, abs=1e-6)
    at_bound = start.add([500 - 31.4308, 125 + 31.4308])
    assert float(at_bound.log_mismatch()) == pytest.approx(math.log(20), abs=2e-5)


def test_three_arms_are_the_published_closed_form():
    state = Shares.start([0.5, 0.3, 0.2], strength=10).add([20, 11, 9])
    theta, n = np.array([0.5, 0.3, 0.2]), np.array([20, 11, 9])
    closed = (
        gammaln(10) - gammaln(50) + (gammaln(10 * theta + n) - gammaln(10 * theta)).sum() - (n * np.log(theta)).sum()
    )
    assert float(state.log_mismatch()) == pytest.approx(closed, abs=1e-6)
    assert Shares.from_json(json.loads(json.dumps(state.to_json()))).log_mismatch() == state.log_mismatch()


def test_a_sound_split_is_rarely_called_broken_and_a_bent_one_is():
    rng = np.random.default_rng(8)
    for chance, called in ((0.1, False), (0.12, True)):
        state, high = Shares.start([0.9, 0.1], batch=(1000,)), np.full(1000, -np.inf)
        for _ in range(100):
            b = rng.binomial(200, chance, 1000)
            state = state.add(np.stack([200 - b, b], axis=-1))
            high = np.maximum(high, state.log_mismatch())
        hits = int((high >= math.log(20)).sum())
        assert hits > 900 if called else lower_bound(hits, 1000) <= 0.05

"""Means and shares: closed forms written a second time, seeded coverage, storage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln, gammaln
from scipy.stats import beta

from cumulant.statistics.sequential.means import Betting, Paired
from cumulant.statistics.sequential.share import Shares

UNIT = st.floats(0, 1, allow_nan=False)


def lower_bound(hits, of):
    return 0.0 if not hits else float(beta.ppf(0.001, hits, of - hits + 1))


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


@pytest.mark.parametrize(
    "call",
    [
        lambda: Betting.start(0.0),
        lambda: Betting.start(0.5).add([math.nan]),
        lambda: Paired.start(margin=2),
        lambda: Paired.start(margin=0.1).add([1.5]),
        lambda: Shares.start([0.5, 0.6]),
        lambda: Shares.start([0.5, 0.5]).add([-1, 0]),
    ],
)
def test_what_would_break_the_guarantee_is_refused(call):
    with pytest.raises(ValueError):
        call()


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

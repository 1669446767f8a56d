"""Exact tails against scipy's distributions, and what overdispersion says of shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, poisson

from cumulant.statistics.exact import (
    binomial_at_least,
    binomial_at_most,
    overdispersion,
    poisson_at_least,
    poisson_at_most,
)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1))
def test_tails_of_a_binomial(first, second, share):
    count, rows = sorted((first, second))
    assert binomial_at_least(count, rows, share) == pytest.approx(binom.sf(count - 1, rows, share), abs=1e-9)
    assert binomial_at_most(count, rows, share) == pytest.approx(binom.cdf(count, rows, share), abs=1e-9)


@given(st.integers(0, 100), st.floats(0, 100))
def test_tails_of_a_poisson(count, mean):
    assert poisson_at_least(count, mean) == pytest.approx(poisson.sf(count - 1, mean), abs=1e-9)
    assert poisson_at_most(count, mean) == pytest.approx(poisson.cdf(count, mean), abs=1e-9)


def test_shares_of_bursts_vary_more():
    random = np.random.default_rng(0)
    rows = random.integers(500, 1500, 400)
    alone = random.binomial(rows, 0.02)
    assert overdispersion(alone.tolist(), rows.tolist()) == pytest.approx(1.0, abs=0.2)
    bursts = 10 * random.binomial(rows // 10, 0.02)
    assert overdispersion(bursts.tolist(), rows.tolist()) == pytest.approx(10.0, rel=0.2)


def test_samples_without_rows_say_nothing_of_the_others():
    counts, rows = [0, 20, 0, 20], [500] * 4
    assert overdispersion([*counts, *[0] * 20], [*rows, *[0] * 20]) == overdispersion(counts, rows) > 10


@pytest.mark.parametrize(
    ("counts", "rows"), [([], []), ([3], [10]), ([0, 0], [10, 10]), ([10, 9], [10, 9]), ([1, 0], [4, 0])]
)
def test_nothing_is_learned_of_samples_that_do_not_vary(counts, rows):
    assert overdispersion(counts, rows) == 1.0

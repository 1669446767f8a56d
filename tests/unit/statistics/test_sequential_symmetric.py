"""One value a block: exact by enumeration of signs, alpha kept where pairs of a block depend on each other."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from cumulant.statistics.sequential.mean_bounds import BettingBounds, BlockBounds
from cumulant.statistics.sequential.means import Paired
from cumulant.statistics.sequential.power import paired_blocks
from cumulant.statistics.sequential.symmetric import PairedBlocks, Symmetric, bet_sizes

BAR = math.log(20)
#: zero, or a value whose square is no subnormal number, which the product written out would divide by
VALUE = st.floats(-3, 3).map(lambda value: value if abs(value) > 1e-150 else 0.0)
SIZE = st.floats(0, 50, allow_subnormal=False)


def beside_edges(*edges, runs):
    """Means [runs] just below an edge or just above it, where the test of that edge is wrong most often."""
    return np.tile(np.asarray(edges) + 1e-9 * (-1.0) ** np.arange(len(edges)), runs // len(edges))


def misses(bounds, mean, alpha, before):
    """On which side [2, batch] runs have had an interval without the mean, now or `before`."""
    low, high = bounds.interval(alpha)
    return before | np.array([low > mean, high < mean])


def check_misses(missed, alpha):
    """Each side has half of alpha."""
    for side in missed:
        assert lower_bound(int(side.sum()), len(side)) <= alpha / 2


@pytest.mark.parametrize("skewed", [False, True])
def test_bounds_are_the_test_of_the_margin_at_the_margin_and_contain_the_mean(skewed):
    rng, margin, alpha, mean = np.random.default_rng(3), 0.01, 0.1, beside_edges(-0.005, 0.0, 0.005, 0.01, runs=200)
    test = PairedBlocks.start(margin=margin, edge=margin, batch=mean.shape)
    bounds, missed = BlockBounds.start(margin, batch=mean.shape), np.zeros((2, len(mean)), dtype=bool)
    for number in range(60):
        pairs = int(rng.integers(50, 90))
        # The mean of 50 pairs and more is far less skewed than a pair: by 2 / sqrt(50) at most where pairs are exponential.
        chance = (rng.gamma(50, size=len(mean)) - 50) / math.sqrt(50) if skewed else rng.normal(size=len(mean))
        block = mean + 0.01 * chance
        test, bounds = test.add(block, pairs, weight=0.7), bounds.add(block, pairs, weight=0.7)
        if number % 3 == 2:
            missed = misses(bounds, mean, alpha, missed)
    at = list(bounds.edges).index(margin)
    assert bounds.above.log_evidence()[:, at] == pytest.approx(test.log_harm())
    assert bounds.below.log_evidence()[:, at] == pytest.approx(test.log_not_worse())
    low, high = bounds.interval(alpha)
    runs, place = np.arange(len(mean)), np.searchsorted(bounds.edges, [low, high])
    for evidence, ends, beyond in zip((bounds.above, bounds.below), place, (1, -1), strict=True):
        assert (evidence.log_evidence()[runs, ends] >= math.log(2 / alpha)).all(), "the last edge that is rejected"
        assert (evidence.log_evidence()[runs, ends + beyond] < math.log(2 / alpha)).all()
    check_misses(missed, alpha)
    assert np.median(high - low) <= 2 * margin


def test_bounds_of_bounded_values_are_the_test_of_the_margin_at_the_margin_and_contain_the_mean():
    rng, margin, alpha, mean = np.random.default_rng(4), 0.1, 0.1, beside_edges(-0.05, 0.0, 0.05, 0.1, runs=200)
    values = np.clip(rng.normal(mean[:, None], 0.3, (len(mean), 150)), -2, 2)
    test = Paired.start(margin=margin, scale=2.0, batch=mean.shape).add(values)
    bounds, missed = BettingBounds.start(margin, 2.0, batch=mean.shape), np.zeros((2, len(mean)), dtype=bool)
    for number, value in enumerate(values.T):
        bounds = bounds.add(value)
        if number % 5 == 4:
            missed = misses(bounds, mean, alpha, missed)
    assert bounds.below[:, list(bounds.edges).index(margin)] == pytest.approx(test.better.capital)
    assert bounds.above[:, list(bounds.edges).index(0.0)] == pytest.approx(test.worse.capital)
    low, high = bounds.interval(alpha)
    check_misses(missed, alpha)
    assert np.median(high - low) <= 3 * margin


@pytest.mark.parametrize("bounds", [BlockBounds.start(0.01).add(0.004, 60), BettingBounds.start(0.1, 2.0).add(0.05)])
def test_bounds_are_stored_in_half_the_space_of_numbers_as_text(bounds):
    text = json.dumps(bounds.to_json())
    assert type(bounds).from_json(json.loads(text)).to_json() == bounds.to_json()
    values = sum(np.size(each) for each in (bounds.above, bounds.below)) if isinstance(bounds, BettingBounds) else 432
    assert len(text) < 11 * values + 1500
    plain = bounds.to_json()
    plain |= {"edges": bounds.edges.tolist()}
    if isinstance(bounds, BettingBounds):  # as it was stored before
        plain |= {"above": bounds.above.tolist(), "below": bounds.below.tolist()}
    assert type(bounds).from_json(plain).to_json() == bounds.to_json()


def test_nothing_is_known_before_the_first_block_and_a_margin_is_required():
    assert BlockBounds.start(0.1).interval(0.05) == (-math.inf, math.inf)
    assert BettingBounds.start(0.1, 1.0).interval(0.05) == (-math.inf, math.inf)
    assert np.abs(BettingBounds.start(0.1, 1.0).edges).max() < 1
    with pytest.raises(ValueError, match="margin"):
        BlockBounds.start(0)


def lower_bound(hits, of):
    return 0.0 if not hits else float(beta.ppf(0.001, hits, of - hits + 1))


def by_hand(values):
    """The mean over bets of the product of 1 + tanh(bet x / size), value by value."""
    total = 0.0
    for bet in bet_sizes():
        capital, squares = 1.0, 0.0
        for block, x in enumerate(values, 1):
            squares += x * x
            capital *= 1 + math.tanh(bet * x / math.sqrt(squares / block)) if squares else 1.0
        total += capital
    return total / len(bet_sizes())


@given(st.lists(VALUE, max_size=12))
@settings(max_examples=60, deadline=None)
def test_capital_is_the_product_written_out(values):
    state = Symmetric.start()
    for x in values:
        state = Symmetric.from_json(json.loads(json.dumps(state.add(x).to_json())))
    assert float(np.exp(state.log_evidence())) == pytest.approx(by_hand(values), rel=1e-9)


def expected(sizes, centres):
    """The e-value's expectation over all signs: block k is its centre plus or minus a size that earlier signs chose."""
    total = 0.0
    for signs in np.ndindex(*(2,) * len(centres)):
        state, past = Symmetric.start(), 0
        for block, sign in enumerate(signs):
            state = state.add(centres[block] + (2 * sign - 1) * sizes[(2**block - 1 + past) % len(sizes)])
            past = 2 * past + sign
        total += float(np.exp(state.log_evidence()))
    return total / 2 ** len(centres)


@given(st.lists(SIZE, min_size=31, max_size=31))
@settings(max_examples=20, deadline=None)
def test_its_expectation_is_one_where_values_are_symmetric_however_their_spread_follows_from_the_past(sizes):
    assert expected(sizes, [0.0] * 5) == pytest.approx(1, abs=1e-9)


@given(
    st.lists(SIZE, min_size=15, max_size=15), st.lists(st.floats(-5, 0, allow_subnormal=False), min_size=4, max_size=4)
)
@settings(max_examples=20, deadline=None)
def test_its_expectation_is_at_most_one_where_they_are_symmetric_below(sizes, centres):
    assert expected(sizes, centres) <= 1 + 1e-9


@given(st.lists(st.tuples(st.floats(-1, 1, allow_subnormal=False), st.integers(1, 500)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_small_block_counts_for_less_and_both_sides_are_the_test_of_one_value(blocks):
    state, worse, better, pairs = PairedBlocks.start(margin=0.05, edge=0.01), [], [], []
    for mean, count in blocks:
        state = PairedBlocks.from_json(json.loads(json.dumps(state.add(mean, count).to_json())))
        weight = min(1.0, count / (sum(pairs) / len(pairs))) if pairs else 1.0
        pairs.append(count)
        worse.append(weight * (mean - 0.01))
        better.append(weight * (0.05 - mean))
    assert float(np.exp(state.log_harm())) == pytest.approx(by_hand(worse), rel=1e-9)
    assert float(np.exp(state.log_not_worse())) == pytest.approx(by_hand(better), rel=1e-9)
    assert float(state.pairs) == sum(pairs)


def test_a_block_at_most_doubles_the_evidence_and_two_equal_models_are_soon_within_any_margin():
    state = PairedBlocks.start(margin=0.005)
    for block in range(1, 8):
        state = state.add(0.0, 1000)
        assert float(state.log_not_worse()) <= block * math.log(2)
    assert float(state.log_not_worse()) >= BAR
    assert float(state.log_harm()) == pytest.approx(0, abs=1e-12)


def highest(
    draw, *, mean, blocks=60, releases=1000, margin=0.005, drift=0.0, deviation=0.17, chained=0.0, skewed=False
):
    """Greatest evidence of harm and of no harm, and the pairs until it was shown [releases].

    Between 100 and 700 pairs a block, with chance of their own, and a difference that all pairs of a block share:
    Student's t with 3 degrees of freedom, autocorrelated by `chained`, or exponential.
    """
    state, most = PairedBlocks.start(margin=margin, batch=(releases,)), np.full((2, releases), -math.inf)
    first, common = np.full(releases, math.inf), np.zeros(releases)
    for _ in range(blocks):
        pairs = draw.integers(100, 700, releases)
        new = 1 - draw.exponential(size=releases) if skewed else draw.standard_t(3, releases) / math.sqrt(3)
        common = chained * common + math.sqrt(1 - chained**2) * new
        state = state.add(mean + drift * common + deviation * draw.normal(size=releases) / np.sqrt(pairs), pairs)
        most = np.maximum(most, [state.log_harm(), state.log_not_worse()])
        first = np.where(np.isinf(first) & (most[1] >= BAR), state.pairs, first)
    return most, first


@pytest.mark.parametrize(
    "world",
    [{}, {"drift": 0.01}, {"drift": 0.05}, {"drift": 0.01, "chained": 0.1}, {"drift": 0.005, "skewed": True}],
    ids=["independent", "days", "long tails", "a little autocorrelation", "a little skewed"],
)
def test_days_that_pairs_share_cost_no_false_rollback_and_no_false_promotion(world):
    draw = np.random.default_rng(11)
    (harm, _), _ = highest(draw, mean=0.0, **world)
    assert lower_bound(int((harm >= BAR).sum()), len(harm)) <= 0.05
    (_, fine), _ = highest(draw, mean=0.0055, **world)
    assert lower_bound(int((fine >= BAR).sum()), len(fine)) <= 0.05


def test_bets_on_single_pairs_roll_sound_candidates_back_where_pairs_share_their_day():
    draw = np.random.default_rng(12)
    releases, high = 200, np.full(200, -math.inf)
    state, blocks = Paired.start(margin=0.005, batch=(releases,)), PairedBlocks.start(margin=0.005, batch=(releases,))
    held = np.full(releases, -math.inf)
    for _ in range(30):
        day = 0.02 * draw.normal(size=(releases, 1))
        pairs = (day + 0.17 * draw.normal(size=(releases, 200))).clip(-1, 1)
        state, blocks = state.add(pairs), blocks.add(pairs.mean(-1), 200)
        high, held = np.maximum(high, state.log_harm()), np.maximum(held, blocks.log_harm())
    assert lower_bound(int((high >= BAR).sum()), releases) > 0.05
    assert lower_bound(int((held >= BAR).sum()), releases) <= 0.05


def test_twelve_thousand_independent_flights_show_a_brier_margin_of_half_a_point():
    _, first = highest(np.random.default_rng(13), mean=0.0)
    assert np.median(first) <= 12_000
    _, shared = highest(np.random.default_rng(13), mean=0.0, drift=0.005)
    assert np.median(first) < np.median(shared) < 24_000, "what robustness costs"


def test_harm_is_found_in_a_dozen_blocks():
    draw = np.random.default_rng(14)
    state, first = PairedBlocks.start(margin=0.005, batch=(200,)), np.full(200, math.inf)
    for block in range(1, 31):
        state = state.add(0.03 + 0.012 * draw.normal(size=200), 200)
        first = np.where(np.isinf(first) & (state.log_harm() >= math.log(80)), block, first)
    assert np.median(first) <= 12


@pytest.mark.parametrize("pairs", [50, 400, 1000])
def test_the_plan_says_about_how_many_blocks_it_takes(pairs):
    draw, releases = np.random.default_rng(15), 200
    wanted = paired_blocks(margin=0.005, deviation=0.17, pairs=pairs, drift=0.003)
    state, first = PairedBlocks.start(margin=0.005, batch=(releases,)), np.full(releases, math.inf)
    for block in range(1, int(4 * wanted)):
        spread = math.hypot(0.17 / math.sqrt(pairs), 0.003)
        state = state.add(spread * draw.normal(size=releases), pairs)
        first = np.where(np.isinf(first) & (state.log_not_worse() >= BAR), block, first)
    assert np.median(first) == pytest.approx(wanted, rel=0.35)


@pytest.mark.parametrize(
    "call",
    [
        lambda: PairedBlocks.start(margin=0.0),
        lambda: PairedBlocks.start(margin=0.1, edge=0.2),
        lambda: PairedBlocks.start(margin=math.inf),
        lambda: PairedBlocks.start(margin=0.1).add(0.0, 0),
        lambda: PairedBlocks.start(margin=0.1).add(math.nan, 5),
        lambda: Symmetric.start().add(math.inf),
        lambda: paired_blocks(margin=0.1, deviation=0.1, pairs=0),
        lambda: paired_blocks(margin=0.1, deviation=0.1, pairs=10, drift=-1),
    ],
)
def test_what_would_break_the_guarantee_is_refused(call):
    with pytest.raises(ValueError):
        call()

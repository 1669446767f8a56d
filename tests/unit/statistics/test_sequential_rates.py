"""Rates: exact expectations by enumeration, seeded releases, invariances, and storage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln, logsumexp
from scipy.stats import beta, binom, nbinom, poisson

from cumulant.statistics.sequential.rates import RateDesign, Rates, known_bursts, known_levels

SMALL = RateDesign(lowest=5e-4, highest=0.1, step=0.1, shapes=(0.5, 1.0, 4.0, math.inf))
COARSE = RateDesign(lowest=2e-4, highest=0.3, step=0.2, shapes=(0.5, 1.0, 4.0, math.inf))


def arm_pmf(k, mean, shape):
    return poisson.pmf(k, mean) if math.isinf(shape) else nbinom.pmf(k, shape, shape / (shape + mean))


def outcomes(requests, rates, shapes, most=(90, 40)):
    """All pairs of counts that matter, and their probabilities."""
    c, t = (np.arange(m) for m in most)
    chance = arm_pmf(c, requests[0] * rates[0], shapes[0])[:, None] * arm_pmf(t, requests[1] * rates[1], shapes[1])
    return np.broadcast_to(c[:, None], chance.shape), np.broadcast_to(t, chance.shape), chance


def added(state, requests, c, t):
    return state.add(champion_requests=requests[0], champion_bad=c, candidate_requests=requests[1], candidate_bad=t)


def lower_bound(hits, of):
    return 0.0 if not hits else float(beta.ppf(0.001, hits, of - hits + 1))


def simulated(releases, looks, rates, *, requests=(1800, 200), cv=0.0, shared=False, seed=0):
    rng = np.random.default_rng(seed)
    shape = (looks, releases)

    def burst():
        return rng.gamma(cv**-2, cv**2, shape) if cv else np.ones(shape)

    ours = burst()
    theirs = ours if shared else burst()
    for i in range(looks):
        na, nb = rng.poisson(requests[0], releases), rng.poisson(requests[1], releases)
        yield (
            na,
            rng.binomial(na, np.minimum(rates[0] * ours[i], 1)),
            nb,
            rng.binomial(nb, np.minimum(rates[1] * theirs[i], 1)),
        )


def watch(blocks, test, releases, design=SMALL):
    """The highest log evidence and the first look at which it reached log 20, for each release."""
    state, high, first = Rates.start(design, batch=(releases,)), np.full(releases, -np.inf), np.full(releases, np.inf)
    for look, (na, ka, nb, kb) in enumerate(blocks, 1):
        state = state.add(champion_requests=na, champion_bad=ka, candidate_requests=nb, candidate_bad=kb)
        now = test(state)
        high = np.maximum(high, now)
        first[np.isinf(first) & (now >= math.log(20))] = look
    return high, first


@pytest.mark.parametrize("shapes", [(math.inf, math.inf), (1.0, 1.0), (4.0, 4.0), (math.inf, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_expected_e_value_of_a_block_at_the_edge_of_the_null_is_at_most_one(shapes, scale):
    requests, p = (200, 100), 0.01 * scale
    c, t, chance = outcomes(requests, (p, p), shapes, most=(60, 60))
    state = added(Rates.start(COARSE), requests, c, t)
    assert chance.sum() > 0.99
    assert float((chance * np.exp(state.log_harm())).sum()) <= 1.0


def test_the_expected_e_value_of_two_blocks_is_at_most_one():
    requests, p = (300, 200), 0.005
    for shapes in ((math.inf, math.inf), (1.0, 1.0)):
        c, t, chance = (x.ravel() for x in outcomes(requests, (p, p), shapes, most=(10, 8)))
        pairs = chance[:, None] * chance
        start = Rates.start(COARSE)
        one = added(start, requests, c[:, None], t[:, None])
        two = added(one, requests, np.broadcast_to(c, pairs.shape), np.broadcast_to(t, pairs.shape))
        assert float((pairs * np.exp(two.log_harm())).sum()) <= 1.0


@pytest.mark.parametrize("shapes", [(math.inf, math.inf), (2.0, 2.0)])
@pytest.mark.parametrize("difference", [0.0025, 0.01])
def test_the_expected_e_value_of_non_inferiority_at_the_margin_is_at_most_one(shapes, difference):
    requests, p = (1000, 500), 0.005
    c, t, chance = outcomes(requests, (p, p + difference), shapes, most=(40, 60))
    state = added(Rates.start(COARSE), requests, c, t)
    assert float((chance * np.exp(state.log_not_worse(difference=difference))).sum()) <= 1.0


def test_without_bursts_it_is_the_conditional_test_given_the_total():
    """With no shapes but infinity: a mixture of binomial likelihood ratios at the candidate's share, in closed form."""
    design = RateDesign(
        lowest=1e-6, highest=0.9, step=0.05, shapes=(math.inf,), outage=0, ratios=(math.exp(0.5), math.exp(1.0))
    )
    c, t, na, nb = 31, 9, 9000, 1000
    state = added(Rates.start(design), (na, nb), c, t)
    shares = [r * nb / (na + r * nb) for r in (1.0, *design.ratios, 0.8, 0.6)]
    logs = [float(binom.logpmf(t, c + t, s)) for s in shares]
    closed = logsumexp(logs[1:3]) - math.log(2) - logs[0]
    assert float(state.log_harm()) == pytest.approx(closed, abs=1e-6)


def test_tables_are_the_negative_binomial_likelihood():
    design = RateDesign(lowest=1e-3, highest=0.1, step=0.2, shapes=(1.5, math.inf), outage=0)
    state = added(added(Rates.start(design), (500, 100), 4, 2), (700, 80), 9, 0)
    expected = [
        [sum(float(np.log(arm_pmf(k, n * p, a))) for k, n in ((4, 500), (9, 700))) for p in design.rates]
        for a in design.shapes
    ]
    dropped = sum(k * math.log(n) - float(gammaln(k + 1)) for k, n in ((4, 500), (9, 700)))
    assert np.allclose(state.champion + dropped, expected, atol=1e-9)


def test_rare_outages_of_one_arm_are_not_taken_for_harm():
    rng = np.random.default_rng(10)

    def blocks():
        for _ in range(60):
            a, b = (np.where(rng.random(100) < 0.02, 0.15, 0.002) for _ in range(2))
            yield np.full(100, 1800), rng.binomial(1800, a), np.full(100, 200), rng.binomial(200, b)

    high, _ = watch(blocks(), Rates.log_harm, 100, RateDesign(lowest=2e-4, highest=0.3, step=0.12))
    assert lower_bound(int((high >= math.log(20)).sum()), 100) <= 0.05


@pytest.mark.parametrize(
    ("rate", "cv", "shared"), [(0.005, 0, False), (0.02, 0, False), (0.005, 1, False), (0.005, 1, True)]
)
def test_releases_that_are_no_worse_are_rolled_back_at_most_at_alpha(rate, cv, shared):
    blocks = simulated(120, 40, (rate, rate), cv=cv, shared=shared, seed=5)
    design = RateDesign(lowest=rate / 16, highest=rate * 16, step=0.12, shapes=SMALL.shapes)
    high, _ = watch(blocks, Rates.log_harm, 120, design)
    assert lower_bound(int((high >= math.log(20)).sum()), 120) <= 0.05


def test_candidates_just_beyond_the_margin_are_promoted_at_most_at_alpha():
    for cv in (0, 1):
        blocks = simulated(120, 40, (0.005, 0.01), cv=cv, seed=6)
        high, _ = watch(blocks, lambda s: s.log_not_worse(difference=0.005), 120)
        assert lower_bound(int((high >= math.log(20)).sum()), 120) <= 0.05


def test_threefold_errors_are_found_within_a_minute_in_the_median():
    _, first = watch(simulated(200, 10, (0.005, 0.015), seed=7), Rates.log_harm, 200)
    assert np.median(first) <= 6  # looks of 10 s


def test_an_equal_candidate_is_shown_to_be_within_twice_the_rate():
    _, first = watch(simulated(60, 60, (0.005, 0.005), seed=8), lambda s: s.log_not_worse(ratio=2.0), 60)
    assert np.isfinite(first).mean() > 0.8


def test_intervals_cover_at_all_looks_and_narrow():
    ratio, difference = np.ones(60, bool), np.ones(60, bool)
    state = Rates.start(SMALL, batch=(60,))
    for na, ka, nb, kb in simulated(60, 15, (0.004, 0.008), seed=9):
        state = state.add(champion_requests=na, champion_bad=ka, candidate_requests=nb, candidate_bad=kb)
        if state.blocks % 5 == 0:
            low, high = state.ratio_interval(0.05)
            ratio &= (low <= 2) & (high >= 2)
            low, high = state.difference_interval(0.05)
            difference &= (low <= 0.004) & (high >= 0.004)
    assert lower_bound(int((~ratio).sum()), 60) <= 0.05
    assert lower_bound(int((~difference).sum()), 60) <= 0.05
    assert np.median(high - low) < 0.02
    assert np.isfinite(state.ratio_interval()[1]).all()


def test_a_difference_between_two_points_of_the_grid_still_has_an_interval():
    state = Rates.start(SMALL)
    for _ in range(50):
        state = added(state, (100_000, 100_000), 5_000, 1_900)
    low, high = state.difference_interval()
    assert -0.05 < low < -0.031 < high < -0.02
    low, high = state.ratio_interval()
    assert 0.2 < low < 0.38 < high < 0.6


def test_no_data_says_nothing():
    empty = Rates.start(SMALL)
    idle = added(empty, (0, 0), 0, 0)
    for state in (empty, idle):
        assert float(state.log_harm()) <= 0
        assert float(state.log_not_worse(difference=0.01)) <= 0
        assert state.ratio_interval()[0] == 0
        assert state.ratio_interval()[1] == math.inf


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=4), st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_order_of_blocks_and_a_stored_state_change_nothing(blocks, random):
    shuffled = list(blocks)
    random.shuffle(shuffled)
    one, other = Rates.start(SMALL), Rates.start(SMALL, batch=(2,))
    for c, t in blocks:
        one = added(one, (1800, 200), c, t)
        one = Rates.from_json(json.loads(json.dumps(one.to_json())))
    for c, t in shuffled:
        other = added(other, (1800, 200), [c, c], [t, t])
    assert np.allclose(one.log_harm(), other.log_harm(), atol=1e-6)
    assert one.blocks == other.blocks


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=6), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_rates_that_are_left_out_as_unlikely_change_no_evidence(blocks, times):
    state = Rates.start()
    for c, t in blocks * times:
        state = added(state, (1800, 200), c, t)
    whole = Rates(state.design, state.champion, state.candidate, state.blocks)
    vars(whole)["_likely"] = np.arange(len(state.design.rates))
    for one, other in zip(evidence(state), evidence(whole), strict=True):
        assert one == pytest.approx(other, abs=1e-6) or max(one, other) < -10 or min(one, other) > 20


def evidence(state):
    return float(state.log_harm()), float(state.log_not_worse(difference=0.005)), float(state.log_harm(ratio=2.0))


@given(st.integers(0, 40), st.integers(0, 38))
@settings(max_examples=25, deadline=None)
def test_more_bad_events_of_the_candidate_are_never_less_evidence_of_harm_without_bursts(c, t):
    design = RateDesign(lowest=1e-5, highest=0.5, step=0.1, shapes=(math.inf,), outage=0)
    fewer, more = (added(Rates.start(design), (1800, 200), c, bad).log_harm() for bad in (t, t + 1))
    assert more >= fewer - 1e-9


@pytest.mark.parametrize(("bad", "requests"), [(-1, 10), (11, 10), (math.nan, 10), (0, math.inf)])
def test_impossible_counts_are_refused(bad, requests):
    with pytest.raises(ValueError, match="candidate: a block needs"):
        Rates.start(SMALL).add(champion_requests=10, champion_bad=1, candidate_requests=requests, candidate_bad=bad)


def test_impossible_designs_boundaries_and_states_are_refused():
    with pytest.raises(ValueError, match="lowest < highest"):
        RateDesign(lowest=0.1, highest=0.01)
    with pytest.raises(ValueError, match="end with infinity"):
        RateDesign(shapes=(1.0, 2.0))
    with pytest.raises(ValueError, match="ratios are above 1"):
        RateDesign(ratios=(0.5,))
    with pytest.raises(ValueError, match="at or below 0"):
        Rates.start(SMALL).log_harm(difference=-0.01)
    stored = Rates.start(SMALL).to_json()
    stored["champion"] = stored["champion"][:32]
    with pytest.raises(ValueError, match="start afresh"):
        Rates.from_json(stored)


def test_evidence_of_an_arm_counts_for_less_where_its_events_depend_on_each_other():
    state = Rates.start(SMALL)
    for _ in range(8):
        state = added(state, (1800, 200), 9, 8)
    assert state.tempered(1.0, 1.0).log_harm() == pytest.approx(float(state.log_harm()))
    assert 0 < float(state.tempered(0.5, 0.5).log_harm()) < float(state.log_harm())
    assert float(state.tempered(0.0, 0.0).log_harm()) == pytest.approx(0.0, abs=1e-9)


def test_the_champions_past_says_which_bursts_it_has():
    rng = np.random.default_rng(5)
    kinds, usual = RateDesign().kinds, int(np.argmin(np.abs(known_levels() - 0.005)))
    calm = known_bursts(np.full(300, 2000), rng.poisson(10, 300))
    bursty = known_bursts(np.full(300, 2000), rng.poisson(10 * rng.gamma(1.0, 1.0, 300)))
    assert kinds[int(np.argmax(calm[:, usual]))] == (math.inf, 0.0)
    assert kinds[int(np.argmax(bursty[:, usual]))] == (1.0, 0.0)
    assert min(calm.min(), bursty.min()) >= -8.0
    assert np.ptp(calm[-1]) == 0, "calm may be at any level now"
    clean = known_bursts(np.full(300, 2000), np.zeros(300))
    assert clean[-1].max() == 0
    assert clean[0, int(np.argmin(np.abs(known_levels() - 0.1)))] == -8.0, "far from what was seen, and in bursts"


@pytest.mark.parametrize(("champion", "candidate", "looks"), [(0.3, 25, 36), (0.0, 20, 12), (0.0, 20, 6)])
def test_known_calm_of_the_champion_finds_a_harm_that_bursts_could_explain(champion, candidate, looks):
    """A champion that hardly ever fails beside a candidate that fails in each look: bursts, unless it has none."""
    rng = np.random.default_rng(6)
    past = known_bursts(np.full(500, 1800), rng.poisson(champion, 500))
    known, unknown = Rates.start(known=past), Rates.start()
    for c, t in zip(rng.poisson(champion, looks), rng.poisson(candidate, looks), strict=True):
        known, unknown = added(known, (1800, 200), c, t), added(unknown, (1800, 200), c, t)
    assert float(known.log_harm()) > float(unknown.log_harm())
    assert float(known.log_harm()) > math.log(60)


def test_a_level_that_rose_for_both_is_no_harm_whatever_the_past_was():
    """The champion never failed before; now both fail alike, with bursts: 60 releases of which 5% may be called worse."""
    rng = np.random.default_rng(7)
    past = known_bursts(np.full(500, 1800), np.zeros(500))
    batch = 60
    state, most = Rates.start(batch=(batch,), known=past), np.full(batch, -np.inf)
    for _ in range(60):
        counts = [rng.poisson(n * 0.02 * rng.gamma(1.0, 1.0, batch)) for n in (1800, 200)]
        state = added(state, (1800, 200), np.minimum(counts[0], 1800), np.minimum(counts[1], 200))
        most = np.maximum(most, state.log_harm())
    assert (most >= math.log(20)).sum() <= 8  # 1 of 100 at a true 5%

"""Drift statistics against brute force, scipy and published examples; and what they promise when nothing moves."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from cumulant.statistics.drift.bins import cells, grid, groups
from cumulant.statistics.drift.effects import distances, sum_groups, wasserstein_of_cells
from cumulant.statistics.drift.evidence import _cumulants, increase, two_samples
from cumulant.statistics.drift.intervals import effect, squared_distances
from cumulant.statistics.drift.multiple_tests import benjamini_hochberg, level_of_look

floats = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.lists(st.one_of(floats, st.sampled_from([0.0, 1.0, 2.5])), min_size=1, max_size=60),
    st.lists(st.one_of(floats, st.sampled_from([0.0, 1.0, np.inf, -np.inf])), max_size=60),
)
def test_cells_count_each_value_once_and_know_the_outside(reference, current):
    made = grid(np.sort(np.array(reference)))
    ours, theirs = cells(np.array(reference), made)[0], cells(np.array(current), made)[0]
    assert ours.sum() == len(reference)
    assert ours[:2].sum() == ours[-2:].sum() == 0
    edges = [-np.inf, *made.edges, np.inf]
    for place, (low, high) in enumerate(pairwise(edges)):
        inside = [v for v in current if low < v <= high or (v == -np.inf and place == 0)]
        assert theirs[place] == len(inside)
    assert theirs[:2].sum() == sum(v < min(reference) for v in current)
    assert theirs[-2:].sum() == sum(v > max(reference) for v in current)


def test_cells_by_block_are_those_of_each_block():
    generator = np.random.default_rng(2)
    values, block = generator.normal(size=500), generator.integers(0, 4, 500)
    made = grid(np.sort(values))
    found = cells(values, made, block=block, blocks=5)
    for one in range(5):
        assert found[one].tolist() == cells(values[block == one], made)[0].tolist()


def test_declared_edges_and_an_empty_reference():
    made = grid(np.array([0.0, 5.0, 10.0]), declared=np.array([2.0, 6.0, 99.0]))
    assert made.edges.tolist() == [-5.0, np.nextafter(0.0, -1), 2.0, 6.0, 10.0, 15.0]
    assert (made.low, made.high) == (0.0, 10.0)
    with pytest.raises(ValueError, match="at least one value"):
        grid(np.array([]))


@given(st.lists(st.integers(0, 200), min_size=2, max_size=40).filter(lambda c: sum(c) > 0), st.booleans())
def test_groups_are_full_enough_and_neighbours_stay_together(counts, ordered):
    pooled = np.array(counts, dtype=float)
    smaller = pooled.sum() / 2
    found = groups(pooled, smaller, ordered=ordered)
    held = sum_groups(pooled, found)
    if ordered:
        assert (np.diff(found) >= 0).all()
    assert held.sum() == pooled.sum()
    if len(held) > 1:
        assert (held / pooled.sum() * smaller >= 5 - 1e-6).all()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 3))
def test_cells_are_summed_by_group_whatever_their_order(group, blocks):
    counts = np.random.default_rng(len(group)).integers(0, 1000, (blocks, len(group)))
    members = np.eye(max(group) + 1)[group]
    assert np.array_equal(sum_groups(counts, np.array(group)), counts @ members)
    assert np.array_equal(sum_groups(counts.sum(axis=0), np.array(group)), counts.sum(axis=0) @ members)


def test_independent_rows_give_pearson_and_fisher():
    """One block: scipy's own test of a table. Fisher's tea: 3 of 4 against 1 of 4 has a chance of 17/70 (Fisher 1935)."""
    left, right = np.array([[30.0, 50, 20]]), np.array([[45.0, 40, 35]])
    found = two_samples(left, right)
    expected = stats.chi2_contingency(np.vstack([left, right]), correction=False)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)
    assert (found.design, found.blocks) == (1.0, 1)
    assert increase(1, 4, 3, 4) == pytest.approx(17 / 70)
    assert increase(5, 100, 9, 80) == pytest.approx(stats.fisher_exact([[9, 71], [5, 95]], "greater")[1])
    assert increase(0, 100, 0, 50) == 1.0
    assert two_samples(left, np.zeros((1, 3))).p == two_samples(left[:, :1], right[:, :1]).p == 1.0


@given(st.integers(0, 2**31), st.integers(2, 14), st.integers(2, 6), st.integers(1, 7), st.sampled_from([1.0, 4.0]))
def test_cumulants_are_those_of_the_generalised_design_effects(seed, blocks, kinds, span, leverage):
    """Rao and Scott (1981): eigenvalues of the covariance over the multinomial one, by the long way.

    Of `span` blocks in a row it is the sum of the autocovariances with Bartlett's weights (Newey and West 1987).
    """
    generator = np.random.default_rng(seed)
    span = max(min(span, blocks // 2), 1)
    rows, now = generator.integers(1, 50, (blocks, kinds)).astype(float), np.full((200, kinds), 7.0)
    n, m = rows.sum(), now.sum()
    pooled = (rows.sum(0) + now.sum(0)) / (n + m)
    share, sizes = rows.sum(0) / n, rows.sum(1)
    around = [(block - block.sum() * share) / n for block in rows]
    covariance, kept = np.zeros((kinds, kinds)), 1.0
    for first in range(blocks):
        for second in range(blocks):
            weight = max(1 - abs(first - second) / span, 0)
            covariance += weight * np.outer(around[first], around[second])
            kept -= weight / blocks**2  # what the mean of the blocks took of independent ones
    covariance /= kept
    covariance *= leverage + (n**2 / (sizes**2).sum()) / 200  # the current sample has 200 equal blocks
    scale = n * m / (n + m)
    weights = np.linalg.eigvals(scale * np.diag(1 / pooled) @ covariance).real
    mean, variance, third = _cumulants(rows, now, pooled, scale, span=span, leverage=leverage)
    assert mean == pytest.approx(weights.sum(), rel=1e-8)
    # Blocks that stray further than normal ones add to the others, over the number of current blocks.
    lengths = (((rows / sizes[:, None] - share) ** 2) / pooled).sum(1)
    strayed = lengths / lengths.mean() - 1
    least = 2 * (weights**2).sum(), 8 * (weights**3).sum()
    assert variance == pytest.approx(least[0] + max((strayed**2).mean() * mean**2 - least[0], 0) / 200, rel=1e-8)
    assert third == pytest.approx(least[1] + max((strayed**3).mean() * mean**3 - least[1], 0) / 200**2, rel=1e-8)


def blocks_of(generator, blocks, size, concentration, kinds=6):
    """Counts [blocks, kinds] whose shares differ from block to block: Dirichlet-multinomial."""
    shares = generator.dirichlet(np.full(kinds, concentration / kinds), blocks)
    return np.array([generator.multinomial(size, share) for share in shares], dtype=float)


def test_days_that_differ_by_themselves_are_no_evidence():
    """400 pairs without change, 30 days against one: at most 5% by the 99.9% bound; as independent rows, nearly all."""
    generator, runs, wrong, naive = np.random.default_rng(3), 400, 0, 0
    for _ in range(runs):
        left, right = blocks_of(generator, 30, 300, 60), blocks_of(generator, 1, 300, 60)
        wrong += two_samples(left, right).p <= 0.05
        naive += two_samples(left.sum(0)[None], right).p <= 0.05
    assert stats.beta.ppf(0.001, wrong, runs - wrong + 1) <= 0.05 if wrong else True
    assert naive > 0.5 * runs
    moved = right.copy()
    moved[0, :2] = [right[0, :2].sum() + 150, 0]
    assert two_samples(left, moved).p < 1e-3
    assert two_samples(left, right).design > 2


def alike(generator, days, like_before):
    """Shocks [days], each correlated with the one before."""
    found = generator.normal(size=days)
    for day in range(1, days):
        found[day] = like_before * found[day - 1] + np.sqrt(1 - like_before**2) * found[day]
    return found


def shifted(shock):
    """Shares [days, 10] of the deciles of a normal value whose mean moves by a quarter of a deviation."""
    deciles = stats.norm.ppf(np.arange(1, 10) / 10)
    return np.diff(stats.norm.cdf(deciles - shock[:, None] / 4), axis=1, prepend=0.0, append=1.0)


def rare(shock):
    """Shares [days, 5], of which the rarest, a hundredth, grows on days above the mean, and the first on others."""
    shares = np.outer(1 - np.abs(shock) / 40, [0.6, 0.25, 0.1, 0.04, 0.01])
    shares[:, -1] += np.maximum(shock, 0) / 40
    shares[:, 0] += np.maximum(-shock, 0) / 40
    return shares


@pytest.mark.parametrize(
    ("shares", "like_before", "now", "level", "runs"),
    [(rare, 0.0, 1, 0.001, 3000), (shifted, 0.5, 7, 0.01, 1000), (shifted, 0.0, 7, 0.01, 1000)],
)
def test_days_far_out_and_days_like_those_before_are_no_evidence(shares, like_before, now, level, runs):
    """60 days before and `now` current ones: rejected as often as allowed at most, by the 99.9% bound."""
    generator, wrong = np.random.default_rng(7), 0
    for _ in range(runs):
        counts = generator.multinomial(1000, shares(alike(generator, 60 + now, like_before))).astype(float)
        wrong += two_samples(counts[:60], counts[60:]).p <= level
    assert stats.beta.ppf(0.001, wrong, runs - wrong + 1) <= level if wrong else True


def test_distances_equal_those_of_the_values():
    generator = np.random.default_rng(1)
    before, now = generator.normal(0, 2, 20_000), generator.normal(0.7, 2.5, 15_000)
    made = grid(np.sort(before))
    left, right = cells(before, made)[0], cells(now, made)[0]
    group = groups((left + right).astype(float), 15_000, ordered=True)
    found = distances(left, right, group, grid=made, spread=float(before.std()))
    exact = stats.ks_2samp(before, now).statistic
    assert exact - 0.01 <= found.kolmogorov_smirnov <= exact
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(before, now) / before.std(), abs=0.03)
    p, q = sum_groups(left, group), sum_groups(right, group)
    assert found.jensen_shannon == pytest.approx(jensenshannon(p, q, base=2))
    assert squared_distances(p[None], q[None])[0] == pytest.approx(found.jensen_shannon**2)
    p, q = (p + 0.5) / (p + 0.5).sum(), (q + 0.5) / (q + 0.5).sum()
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum())
    still = grid(np.array([3.0]))
    assert wasserstein_of_cells(*(cells(np.full(5, at), still)[0] for at in (3.0, 4.0)), still, 0.0) == np.inf  # type: ignore[call-arg]
    assert wasserstein_of_cells(np.ones(5), np.ones(5), still, 0.0) == 0.0


@given(st.integers(0, 2**31))
def test_the_movers_distance_is_an_area_between_lines(seed):
    """By brute force: the area between two broken lines, on a grid of 20,000 points."""
    generator = np.random.default_rng(seed)
    made = grid(np.sort(generator.normal(size=12)), declared=np.array([-0.5, 0.1, 0.4]))
    left, right = (generator.integers(0, 9, len(made.edges) + 1).astype(float) + 0.1 for _ in range(2))
    points = np.linspace(made.edges[0], made.edges[-1], 20_001)
    lines = [np.interp(points, made.edges, (np.cumsum(c) / c.sum())[:-1]) for c in (left, right)]
    assert wasserstein_of_cells(left, right, made, 1.0) == pytest.approx(
        np.trapezoid(np.abs(lines[0] - lines[1]), points), abs=1e-3
    )


@pytest.mark.parametrize("size", [300, 3000])
def test_the_effect_means_the_same_for_few_and_for_many_rows(size):
    """120 samples: without change it is near 0, with change its interval of 95% holds the truth, less 3 points."""
    generator, runs = np.random.default_rng(5), 120
    p, q = np.full(10, 0.1), np.array([0.16, 0.14, 0.12, 0.1, 0.1, 0.1, 0.08, 0.08, 0.07, 0.05])
    truth, held, told, still = jensenshannon(p, q, base=2), 0, [], []
    for seed in range(runs):
        left, right, same = (generator.multinomial(size, share).astype(float)[None] for share in (p, q, p))
        found = effect(left, right, seed=seed)
        held += found.low <= truth <= found.high
        told.append(found.value**2)
        still.append(effect(left, same, seed=seed).value)
    assert stats.binom.ppf(0.0005, runs, 0.95) - 0.03 * runs <= held
    assert np.mean(told) == pytest.approx(truth**2, rel=0.15)
    assert np.median(still) < 0.03


def test_effects_of_blocks_have_wider_intervals():
    generator = np.random.default_rng(8)
    left, right = blocks_of(generator, 20, 300, 60), blocks_of(generator, 20, 300, 60)
    wide, narrow = effect(left, right), effect(left.sum(0)[None], right.sum(0)[None])
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide == effect(left, right)


def test_false_discoveries_as_published():
    """Benjamini and Hochberg (1995), section 3.1: fifteen p-values, four rejected at 5%."""
    p = np.array(
        [
            0.0001,
            0.0004,
            0.0019,
            0.0095,
            0.0201,
            0.0278,
            0.0298,
            0.0344,
            0.0459,
            0.3240,
            0.4262,
            0.5719,
            0.6528,
            0.7590,
            1.0,
        ]
    )
    rejected, bound = benjamini_hochberg(p, 0.05)
    assert rejected.tolist() == [True] * 4 + [False] * 11
    assert bound == pytest.approx(4 * 0.05 / 15)
    assert benjamini_hochberg(np.array([0.9, 0.2]), 0.05)[1] == 0.025
    assert benjamini_hochberg(np.array([]), 0.05)[0].tolist() == []
    assert level_of_look(0.05, looks=30, spans=2) == pytest.approx(0.05 / 60)


@given(st.lists(st.tuples(st.floats(0, 1), st.one_of(st.just(0.0), st.floats(0.01, 4))), min_size=1, max_size=12))
def test_weighted_discoveries_equal_their_definition(tests):
    p, weights = (np.array(part) for part in zip(*tests, strict=True))
    rejected, _ = benjamini_hochberg(p, 0.1, weights=weights)
    scaled = weights * len(p) / max(weights.sum(), 1e-300)
    told = [value / weight if weight > 0 else np.inf for value, weight in zip(p, scaled, strict=True)]
    most = max((k for k in range(1, len(p) + 1) if sum(v <= 0.1 * k / len(p) for v in told) >= k), default=0)
    assert rejected.tolist() == [most > 0 and value <= 0.1 * most / len(p) for value in told]

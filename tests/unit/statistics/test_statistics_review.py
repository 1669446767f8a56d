"""Conformal sets keep their promise, drawn rows tell of all rows, kappa is the published one, novelty is distance."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cumulant.statistics import (
    Known,
    Scale,
    aps_scores,
    cohen_kappa,
    conformal_quantile,
    contingency_table,
    hajek,
    label_p_values,
    lac_scores,
    p_values,
    prediction_interval,
    prediction_sets,
)

#: how fast this machine is decides no test
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCORES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)


@CALM
@given(SCORES, st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.5]))
def test_the_quantile_is_the_smallest_score_that_enough_scores_do_not_exceed(scores, error):
    found = conformal_quantile(np.array(scores), error)
    enough = [s for s in scores if sum(one <= s for one in scores) >= (1 - error) * (len(scores) + 1) - 1e-9]
    assert found == (min(enough) if enough else math.inf)


@CALM
@given(SCORES, st.integers(0, 9).map(float), st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.5]))
def test_a_p_value_counts_the_scores_that_are_as_large_and_agrees_with_the_quantile(scores, new, error):
    (found,) = p_values(np.array(scores), np.array([new]))
    assert found == (sum(one >= new for one in scores) + 1) / (len(scores) + 1)
    inside = bool(prediction_sets(np.array([[found]]), error)[0, 0])
    assert inside == (new <= conformal_quantile(np.array(scores), error))


@CALM
@given(st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=1, max_size=8))
def test_adaptive_scores_sum_the_probabilities_that_are_at_least_as_large(weights):
    table = np.array(weights, dtype=float)
    table /= table.sum(axis=1, keepdims=True)
    slow = [[sum(p for p in row if p >= own) for own in row] for row in table]
    assert aps_scores(table) == pytest.approx(np.array(slow))


def draws(generator, rows):
    """A rare class, and a model that knows the true chances."""
    chance = generator.beta(0.3, 3.0, rows)
    return np.stack([1 - chance, chance], axis=1), (generator.random(rows) < chance).astype(np.int64)


@pytest.mark.parametrize(("scores", "exact"), [(lac_scores, True), (aps_scores, False)])
def test_sets_miss_the_truth_at_most_as_often_as_they_may_in_each_class(scores, exact):
    generator, missed, rare = np.random.default_rng(5), [], []
    for _ in range(60):
        known, target = draws(generator, 500)
        new, truth = draws(generator, 400)
        values = label_p_values(scores(known), target, scores(new))
        kept = prediction_sets(values, 0.1)[np.arange(400), truth]
        missed.append(1 - kept[truth == 0].mean())
        rare.append(1 - kept[truth == 1].mean())
    assert np.mean(missed) < 0.11
    assert np.mean(rare) < 0.115
    if exact:
        assert np.mean(missed) > 0.09
        assert np.mean(rare) > 0.07  # 45 or so calibration rows: a coarse step


def test_a_class_without_calibration_rows_is_never_ruled_out():
    known = np.array([[0.9, 0.1], [0.8, 0.2]])
    values = label_p_values(lac_scores(known), np.array([0, 0]), lac_scores(np.array([[1.0, 0.0]])))
    assert values[0, 1] == 1.0
    assert label_p_values(lac_scores(known), np.array([0, 0]), lac_scores(known), by_class=False)[0, 1] == 1 / 3


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator, inside = np.random.default_rng(3), []
    for _ in range(200):
        noise = generator.standard_t(3, 99)
        low, high = prediction_interval(np.zeros(99), noise, np.zeros(50), 0.1)
        truth = generator.standard_t(3, 50)
        inside.append(((low <= truth) & (truth <= high)).mean())
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)
    assert prediction_interval(np.zeros(3), np.ones(3), np.zeros(1), 0.1)[1][0] == math.inf


def test_an_error_rate_is_a_share():
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal_quantile(np.ones(3), wrong)


def drawn(generator, values, sure, sample):
    """Of a population the `sure` largest and a simple random sample of the others: values and chances."""
    order = np.argsort(-values)
    rest = order[sure:]
    chosen = np.concatenate([order[:sure], generator.choice(rest, sample, replace=False)])
    chances = np.where(np.arange(len(chosen)) < sure, 1.0, sample / len(rest))
    return values[chosen], chances


@pytest.mark.parametrize("make", [lambda g: g.gamma(2.0, 3.0, 800), lambda g: (g.random(800) < 0.04).astype(float)])
def test_means_of_drawn_rows_are_those_of_the_population(make):
    generator, inside, means = np.random.default_rng(11), [], []
    population = make(np.random.default_rng(2))
    truth = population.mean()
    for _ in range(400):
        values, chances = drawn(generator, population, 15, 60)
        found = hajek(values, chances)
        inside.append(found.low <= truth <= found.high)
        means.append(found.value)
        assert (values / chances).sum() / 800 == pytest.approx(
            found.value
        )  # Horvitz and Thompson: here the weights sum to 800
    assert np.mean(means) == pytest.approx(truth, abs=4 * np.std(means) / 20)
    assert np.mean(inside) > 0.93


def test_what_was_not_seen_may_still_be_there():
    seen = hajek(np.array([1.0, 1.0] + [0.0] * 50), np.array([1.0, 1.0] + [0.01] * 50))
    assert seen.value == pytest.approx(2 / 5002)
    assert seen.high > 0.05  # none of 50 is compatible with one in twenty
    assert hajek(np.array([0.3, 0.7]), np.array([1.0, 1.0])).low == 0.5
    assert hajek(np.array([0.3]), np.array([0.5])).high == math.inf
    with pytest.raises(ValueError, match="chance of being drawn"):
        hajek(np.ones(2), np.array([0.0, 0.5]))
    with pytest.raises(ValueError, match="no row"):
        hajek(np.ones(0), np.ones(0))


def test_kappa_is_that_of_published_examples():
    # Cohen (1960), table 1: proportions of 200 cases in three categories; kappa .492.
    cohen = cohen_kappa(200 * np.array([[0.44, 0.05, 0.01], [0.07, 0.20, 0.03], [0.09, 0.05, 0.06]]))
    assert (cohen.cases, round(cohen.observed, 2), round(cohen.expected, 2)) == (200, 0.70, 0.41)
    assert cohen.kappa == pytest.approx(0.492, abs=5e-4)
    # Fleiss, Levin & Paik (2003), table 18.1: 100 subjects; kappa 0.676, standard error 0.087 or 0.088.
    fleiss = cohen_kappa(np.array([[75.0, 1, 4], [5, 4, 1], [0, 0, 10]]))
    assert fleiss.kappa == pytest.approx(0.676, abs=5e-4)
    assert (fleiss.high - fleiss.low) / 2 / 1.959964 == pytest.approx(0.0877, abs=1e-3)


def test_agreement_that_chance_alone_would_bring_has_no_kappa():
    assert cohen_kappa(contingency_table(["a"] * 4, ["a"] * 4)).kappa is None
    assert cohen_kappa(np.zeros((2, 2))).observed is None
    assert cohen_kappa(contingency_table(["a", "b"], ["a", "b"])).kappa == 1
    assert contingency_table(["a", "b", "a"], ["b", "b", "a"]).tolist() == [[1, 1], [0, 1]]
    with pytest.raises(ValueError, match="square table"):
        cohen_kappa(np.ones((2, 3)))


def test_full_agreement_on_a_few_cases_shows_little():
    two, many, none = (
        cohen_kappa(np.array(table)) for table in ([[1, 0], [0, 1]], [[50, 0], [0, 50]], [[0, 9], [9, 0]])
    )
    assert (two.kappa, two.low < 0, two.high) == (1, True, 1)
    # Both agree on 100 of 100: on at least 96.38% of all (Clopper & Pearson), so kappa is at least 0.9276.
    assert (many.low, many.high) == (pytest.approx(0.9276, abs=1e-4), 1)
    assert (none.kappa, none.low) == (-1, -1)
    assert -1 < none.high < 0


def test_kappa_intervals_hold_the_true_kappa():
    generator, shares = np.random.default_rng(1), np.array([[0.5, 0.08], [0.12, 0.3]])
    truth = cohen_kappa(shares * 1e6).kappa
    tables = generator.multinomial(150, shares.ravel(), size=400).reshape(-1, 2, 2).astype(float)
    inside = [found.low <= truth <= found.high for found in map(cohen_kappa, tables)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


NUMBERS = {"amount": np.array([1.0, 2, 3, 4, np.nan]), "flat": np.ones(5)}
TEXTS = {"kind": ["hat", "hat", "coat", None, "shoe"]}


def test_coordinates_put_a_category_one_unit_apart_and_numbers_by_their_spread():
    scale = Scale.of(NUMBERS, TEXTS)
    points = scale.coordinates(NUMBERS, TEXTS)
    apart = cdist(points, points)
    spread = np.std([1.0, 2, 3, 4])
    assert apart[0, 1] == pytest.approx(1 / spread)
    assert apart[1, 2] == pytest.approx(math.hypot(1 / spread, 1))
    unseen = scale.coordinates({"amount": np.array([2.0])}, {"kind": ["boot"]})
    assert cdist(unseen, points[1:2])[0, 0] == pytest.approx(math.hypot(1, 1))  # another kind, and `flat` is missing
    assert Scale.of({}, {}).coordinates({}, {}).shape == (0, 0)


def test_far_is_the_distance_to_the_nearest_known_rows_and_seldom_said_of_rows_like_them():
    generator = np.random.default_rng(8)
    known = Known(generator.normal(size=(401, 3)))
    new = generator.normal(size=(50, 3))
    slow = np.sort(cdist(new, known.points[::2]), axis=1)[:, :5].mean(axis=1)
    assert known.distances(new) == pytest.approx(slow)
    distance, place = known.neighbours(new, 3)
    assert place.tolist() == np.argsort(cdist(new, known.points), axis=1)[:, :3].tolist()
    assert (np.diff(distance) >= 0).all()
    many = generator.normal(size=(4000, 3))
    assert (known.p_values(many) <= 0.05).mean() == pytest.approx(0.05, abs=0.035)
    assert known.p_values(np.array([[9.0, 9, 9]]))[0] == 1 / 201
    assert known.distances(np.array([[9.0, 9, 9]]))[0] > known.limit(0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("beyond", [1e300, -1.7e308])
def test_a_number_beyond_all_others_has_a_finite_distance(beyond):
    values = np.random.default_rng(3).normal(size=101)
    for learned in (values, np.append(values, [1.7e308, -1.7e308])):
        scale = Scale.of({"price": learned}, {})
        known = Known(scale.coordinates({"price": learned}, {}))
        distances = known.distances(scale.coordinates({"price": np.array([0.1, beyond])}, {}))
        assert np.isfinite(distances).all()
        assert distances[1] >= distances[0]
        assert known.neighbours(scale.coordinates({"price": np.array([beyond])}, {}), 3)[0].shape == (1, 3)


def test_a_single_known_row_knows_no_far():
    alone = Known(np.zeros((1, 2)))
    assert alone.p_values(np.ones((1, 2))).tolist() == [1.0]
    assert alone.limit(0.01) == math.inf
    assert alone.neighbours(np.ones((1, 2)), 3)[1].tolist() == [[0]]

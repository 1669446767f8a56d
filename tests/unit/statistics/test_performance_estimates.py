"""Estimates without labels equal NannyML's, cover what they promise, and are refused in words outside of that."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from cumulant.statistics import METRICS, Estimate, Rows, estimate
from cumulant.statistics.performance.assumptions import blind, calibration_refusal, reference_refusal, window_refusal
from cumulant.statistics.performance.audit import audit
from cumulant.statistics.performance.calibration import (
    Calibrator,
    calibration_error,
    cross_fitted,
    fit_recalibration,
)
from cumulant.statistics.performance.confidence import FIGURES, expected, expected_intervals
from cumulant.statistics.performance.losses import LossReference, expected_loss
from cumulant.statistics.performance.weighted import weighted_estimate

KNOWN = json.loads((Path(__file__).parent / "data" / "nannyml_car_loan.json").read_text())
SCORES = np.arange(101) / 100
YES_FROM = 0.645  # the model says yes from 0.65 on
PROBABILITIES = arrays(np.float64, st.integers(2, 6), elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0]))


def rows_of(counted):
    """Scores and truths, one a row, from counts by score."""
    rows, positives = np.array(counted["rows"]), np.array(counted["positives"])
    truth = np.concatenate([np.r_[np.ones(k), np.zeros(n - k)] for n, k in zip(rows, positives, strict=True)])
    return np.repeat(SCORES, rows), truth


@pytest.mark.parametrize("tenth", range(10))
def test_estimates_equal_those_of_nannyml(tenth):
    """Given its calibrated scores; that it lets equal scores enter one by one is followed for the comparison."""
    window = KNOWN["tenths"][tenth]
    score, _ = rows_of(window)
    probability, yes = np.array(KNOWN["calibrated"])[np.rint(score * 100).astype(int)], score >= YES_FROM
    ours = expected(probability, score, yes, ties="apart")
    theirs = window["nannyml"]
    for name in ("roc_auc", "average_precision", "f1", "precision", "recall", "specificity", "accuracy"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name


def test_the_calibration_is_that_of_nannyml_too():
    score, truth = rows_of(KNOWN["reference"])
    np.testing.assert_allclose(Calibrator.fit(truth, score)(SCORES), KNOWN["calibrated"], atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(PROBABILITIES, st.data())
def test_figures_that_are_means_are_the_mean_over_all_labels(probability, data):
    """The slow form: every assignment of labels, by its probability."""
    n = len(probability)
    score = data.draw(arrays(np.float64, n, elements=st.sampled_from([0.1, 0.3, 0.5, 0.9])))
    yes = score >= 0.5
    found = expected(probability, score, yes)
    slow = dict.fromkeys(("accuracy", "log_loss", "brier"), 0.0)
    for labels in itertools.product([0.0, 1.0], repeat=n):
        truth = np.array(labels)
        chance = np.prod(np.where(truth > 0.5, probability, 1 - probability))
        for name in slow:
            slow[name] += chance * METRICS[name].value(Rows(truth=truth, prediction=score, decision=yes))
    for name, value in slow.items():
        assert found[name] == pytest.approx(value, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, st.integers(2, 30), elements=st.sampled_from([0.0, 1.0])), st.data())
def test_where_the_truth_is_sure_the_estimate_is_the_metric(truth, data):
    score = data.draw(arrays(np.float64, len(truth), elements=st.sampled_from([0.05, 0.2, 0.4, 0.6, 0.95])))
    yes = score >= 0.5
    found, rows = expected(truth, score, yes), Rows(truth=truth, prediction=score, decision=yes)
    for name in set(FIGURES) - {"specificity"}:
        value = METRICS[name].value(rows)
        assert found[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    negatives = truth < 0.5
    told = (~yes[negatives]).mean() if negatives.any() else math.nan
    assert found["specificity"] == pytest.approx(told, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(PROBABILITIES.filter(lambda p: p.sum() > 0))
def test_equal_scores_that_enter_apart_are_rows_in_turn(probability):
    """With one score for all, average precision is the mean precision over places, each row alike in turn."""
    even = np.full(len(probability), probability.mean())
    score = np.full(len(probability), 0.5)
    apart = expected(even, score, score > 0.4, ties="apart")["average_precision"]
    assert apart == pytest.approx(probability.mean())
    distinct = np.linspace(0.9, 0.1, len(probability))
    both = [expected(probability, distinct, distinct > 0.5, ties=ties) for ties in ("together", "apart")]
    assert both[0]["average_precision"] == pytest.approx(both[1]["average_precision"])


def test_intervals_cover_what_labels_then_show():
    """150 worlds: labels of the reference and of the window drawn from one truth; 95% intervals of three figures."""
    generator, worlds, inside = np.random.default_rng(5), 150, dict.fromkeys(("accuracy", "roc_auc", "recall"), 0)
    for world in range(worlds):
        score = generator.beta(0.6, 0.9, 2600).round(2)
        truth = (generator.random(2600) < score**1.3).astype(float)
        known, now = slice(0, 2000), slice(2000, None)
        calibrator = Calibrator.fit(truth[known], score[known])
        yes = score[now] >= 0.5
        ends = expected_intervals(calibrator, calibrator.drawn(80, seed=world), score[now], yes, seed=world)
        rows = Rows(truth=truth[now], prediction=score[now], decision=yes)
        for name in inside:
            inside[name] += ends[name][0] <= METRICS[name].value(rows) <= ends[name][1]
    low, high = binom.ppf([0.0005, 0.9995], worlds, 0.95)
    for name, count in inside.items():
        assert low - 4 <= count <= high, (name, count)


def test_a_spread_widens_and_may_not_shrink():
    score, truth = rows_of(KNOWN["reference"])
    calibrator = Calibrator.fit(truth, score)
    maps, part = calibrator.drawn(50), score[::50]
    narrow, wide = (
        expected_intervals(calibrator, maps, part, part >= 0.5, spread=spread)["accuracy"] for spread in (1.0, 2.0)
    )
    assert wide[1] - wide[0] == pytest.approx(2 * (narrow[1] - narrow[0]))
    with pytest.raises(ValueError, match="factor of 1 or more"):
        expected_intervals(calibrator, maps, part, part >= 0.5, spread=0.5)


def test_figures_that_are_known_already_change_no_interval():
    score, truth = rows_of(KNOWN["reference"])
    calibrator = Calibrator.fit(truth, score)
    maps, part = calibrator.drawn(20), score[::50]
    known = expected(calibrator(part), part, part >= 0.5)
    found = expected_intervals(calibrator, maps, part, part >= 0.5, middle=known)
    assert found == expected_intervals(calibrator, maps, part, part >= 0.5)


def test_a_figure_that_is_not_defined_is_not_a_number():
    probability = score = np.full(200, 0.2)
    calibrator = Calibrator(np.array([0.2, 0.3]), np.array([0.2, 0.3]), np.array([100.0, 100.0]))
    assert math.isnan(expected(probability, score, score > 0.5)["precision"])
    assert math.isnan(expected_intervals(calibrator, calibrator.drawn(20), score, score > 0.5)["precision"][0])


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float64, st.integers(2, 40), elements=st.sampled_from([0.0, 1.0])),
    st.data(),
)
def test_calibration_is_the_nearest_rising_map(truth, data):
    """The slow form: at each score the largest, over starts before it, of the smallest mean up to an end after it."""
    score = data.draw(arrays(np.float64, len(truth), elements=st.sampled_from([0.0, 0.2, 0.3, 0.7, 0.8, 1.0])))
    found = Calibrator.fit(truth, score)
    held = [truth[score == point] for point in found.scores]
    for at, value in enumerate(found.values):
        slow = max(
            min(np.concatenate(held[start : end + 1]).mean() for end in range(at, len(held))) for start in range(at + 1)
        )
        assert value == pytest.approx(slow)
    assert found([-1.0, 2.0]).tolist() == [found.values[0], found.values[-1]]


def test_rows_are_calibrated_by_others():
    generator = np.random.default_rng(1)
    score = generator.random(2000)
    noise = (generator.random(2000) < 0.5).astype(float)
    fold = np.arange(2000) % 5
    own = Calibrator.fit(noise, score)(score)
    others = cross_fitted(noise, score, fold)
    assert ((own - noise) ** 2).mean() < 0.25 < ((others - noise) ** 2).mean()  # it learned noise by heart
    with pytest.raises(ValueError, match="one fold only"):
        cross_fitted(noise, score, np.zeros(2000, dtype=np.int64))


def test_a_recalibration_finds_slope_and_offset():
    generator = np.random.default_rng(2)
    margin = generator.normal(0, 1.5, 40_000)
    truth = (generator.random(40_000) < 1 / (1 + np.exp(-(0.6 * margin - 0.8)))).astype(float)
    slope, offset = fit_recalibration(truth, 1 / (1 + np.exp(-margin)), np.ones(40_000))
    assert (slope, offset) == (pytest.approx(0.6, abs=0.03), pytest.approx(-0.8, abs=0.03))
    few = fit_recalibration(truth[:5], 1 / (1 + np.exp(-margin[:5])), np.ones(5))
    assert few == (pytest.approx(1, abs=0.3), pytest.approx(0, abs=0.5))  # five rows hardly move it


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 50))
def test_a_weight_is_as_many_rows(seed):
    generator = np.random.default_rng(seed)
    truth, score = generator.integers(0, 2, 40).astype(float), generator.random(40).round(1)
    cluster, times = generator.integers(0, 8, 40), generator.integers(1, 4, 40)
    cluster = np.unique(cluster, return_inverse=True)[1]
    rows = Rows(truth=truth, prediction=score, cluster=cluster)
    many = Rows(truth=np.repeat(truth, times), prediction=np.repeat(score, times), cluster=np.repeat(cluster, times))
    for name in ("brier", "roc_auc", "recall"):
        weighted = weighted_estimate(METRICS[name], rows, times.astype(float), resamples=40)
        plain = estimate(METRICS[name], many, resamples=40)
        for one, other in ((weighted.value, plain.value), (weighted.low, plain.low), (weighted.high, plain.high)):
            assert one == pytest.approx(other, nan_ok=True) if other is not None else one is None


def test_weights_that_stand_for_nothing_are_refused():
    rows = Rows(truth=np.ones(3), prediction=np.ones(3))
    for weight in (np.array([1.0, 0.0, 1.0]), np.array([1.0, math.inf, 1.0]), np.ones(2)):
        with pytest.raises(ValueError, match="weight above 0"):
            weighted_estimate(METRICS["brier"], rows, weight)


def test_what_an_estimate_stands_on_is_said_where_it_is_missing():
    generator = np.random.default_rng(3)
    score = generator.random(600)
    truth = (generator.random(600) < score).astype(float)
    assert reference_refusal(truth, score) is None
    assert "too few" in reference_refusal(truth[:300], score[:300])
    assert "of either class" in reference_refusal(np.zeros(600), score)
    assert "two classes" in reference_refusal(truth * 2, score)
    assert "between" in reference_refusal(truth, score * 3)
    assert "not finite" in reference_refusal(truth, np.where(score > 0.5, np.nan, score))
    calibrator = Calibrator.fit(truth, score)
    assert window_refusal(score, calibrator) is None
    assert "too few" in window_refusal(score[:50], calibrator)
    assert "no probabilities" in window_refusal(score + 1, calibrator)
    narrow = Calibrator.fit(truth[score < 0.6], score[score < 0.6])
    assert "beyond every score" in window_refusal(score, narrow)


def test_scores_that_are_surely_not_calibrated_are_refused():
    generator = np.random.default_rng(4)
    score = generator.random(4000)
    honest, boastful = (
        calibration_error(Rows(truth=(generator.random(4000) < chance).astype(float), prediction=score))
        for chance in (score, 0.5 + (score - 0.5) / 2)
    )
    assert calibration_refusal(honest) is None
    assert "not calibrated" in calibration_refusal(boastful)
    assert "cannot be estimated" in calibration_refusal(Estimate(value=None))


def test_a_change_that_estimates_cannot_see_makes_them_refuse():
    assert "concept" in blind("concept")
    assert "prior" in blind("prior")
    assert blind("covariate") is None
    assert blind(None) is None


def test_a_loss_is_estimated_where_it_is_found():
    """300 worlds: losses spread around what the loss model said, with a bias; 95% of intervals hold the mean."""
    generator, worlds, inside = np.random.default_rng(6), 300, 0
    for _ in range(worlds):
        said = generator.gamma(2.0, 1.0, 1400)
        loss = said * generator.exponential(1.0, 1400) + 0.3
        found = expected_loss(LossReference.of(loss[:1000], said[:1000]), said[1000:])
        inside += found.low <= loss[1000:].mean() <= found.high
    low, high = binom.ppf([0.0005, 0.9995], worlds, 0.95)
    assert low <= inside <= high


def test_losses_of_one_day_that_move_together_widen_the_interval():
    generator = np.random.default_rng(7)
    day = np.repeat(np.arange(40), 50)
    said = np.ones(2000)
    loss = said + generator.normal(0, 0.5, 40)[day] + generator.normal(0, 0.5, 2000)
    alone, by_day = LossReference.of(loss, said), LossReference.of(loss, said, day)
    assert alone.spread == 1.0
    assert by_day.spread > 3
    assert by_day.clusters == 40
    with pytest.raises(ValueError, match="500 rows or more"):
        LossReference.of(loss[:100], said[:100])
    with pytest.raises(ValueError, match="one row or more"):
        expected_loss(alone, np.zeros(0))


def test_an_audit_holds_estimates_to_the_truth():
    found = audit([(0.8, 0.9, 1.0)] * 19 + [(0.8, 0.9, 1.0)], [0.85] * 19 + [0.7], before=0.95)
    assert (found.windows, found.covered, found.holds) == (20, 19, True)
    assert found.mean_error == pytest.approx(0.0575)
    assert found.worst_error == pytest.approx(0.2)
    assert found.unmoved == pytest.approx((19 * 0.1 + 0.25) / 20)
    wrong = audit([(0.89, 0.9, 0.91)] * 10, [0.7] * 10, before=0.9)
    assert (wrong.covered, wrong.covered_low, wrong.holds) == (0, 0.0, False)
    for estimates, truths in (([], []), ([(0.0, 0.0, 0.0)], [])):
        with pytest.raises(ValueError, match="a truth for each estimate"):
            audit(estimates, truths, before=0.5)

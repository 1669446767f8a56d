"""Metrics by window: ripe ones only, selection told or corrected, whole clusters drawn; estimates beside them."""

from datetime import timedelta

import numpy as np
import pytest
from performance_support import DAY, LATER, START, daily, sigmoid

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.labelled import measured
from cumulant.monitoring.performance.lossmodel import estimate_loss, learn_loss, row_losses, tells_rows_apart
from cumulant.monitoring.performance.rows import PredictionRows, windows
from cumulant.monitoring.performance.unlabelled import audited, estimate_windows, learn_estimator
from cumulant.statistics import METRICS, Rows, estimate


@pytest.fixture(scope="module")
def scored():
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1.5, 20 * 500)
    return sigmoid(x), (generator.random(len(x)) < sigmoid(x)).astype(float)


def test_windows_hold_each_prediction_once_in_order_of_time(scored):
    score, truth = scored
    shuffled = np.random.default_rng(2).permutation(len(score))
    parts = list(windows(daily(score, truth, rows=500).where(shuffled), DAY))
    assert [window.start for window, _ in parts] == [START + number * DAY for number in range(20)]
    np.testing.assert_array_equal(np.concatenate([part.score for _, part in parts]), score)
    with pytest.raises(DataError, match="no length"):
        list(windows(daily(score, truth, rows=500), timedelta(0)))


def test_metrics_are_those_of_training(scored):
    score, truth = scored
    days = np.arange(len(score)) // 50
    found = measured(
        daily(score, truth, rows=500, cluster=days),
        task="binary",
        every=DAY,
        now=LATER,
        resamples=50,
        metrics=("brier", "roc_auc", "pinball_90"),
    )
    first = Rows(truth=truth[:500], prediction=score[:500], cluster=days[:500])
    same = estimate(METRICS["brier"], first, resamples=50)
    assert (found[0].figures["brier"].value, found[0].figures["brier"].low) == (same.value, same.low)
    assert found[0].figures["brier"].clusters == 10
    assert set(found[0].figures) == {"brier", "roc_auc", "pinball_90"}
    assert len(found) == 20
    assert found[0].base == truth[:500].mean()
    with pytest.raises(KeyError):
        measured(daily(score, truth, rows=500), task="binary", every=DAY, now=LATER, metrics=("nonsense",))


def test_a_window_waits_until_its_labels_are_due(scored):
    score, truth = scored
    found = measured(
        daily(score, truth, rows=500),
        task="binary",
        every=DAY,
        now=START + 12 * DAY,
        label_delay=7 * DAY,
        metrics=("brier",),
        resamples=20,
    )
    assert [one.ripe for one in found] == [True] * 5 + [False] * 15
    assert found[4].figures
    assert "label delay" in found[5].refused
    assert not found[5].figures


def test_labels_that_come_by_themselves_for_a_few_measure_nothing(scored):
    score, truth = scored
    known = np.where(score > 0.4, truth, np.nan)
    found = measured(daily(score, known, rows=500), task="binary", every=DAY, now=LATER, metrics=("brier",))
    assert "may depend on what was predicted" in found[0].refused
    assert found[0].share < 0.8
    few = measured(daily(score[:40], np.full(40, np.nan), rows=500), task="binary", every=DAY, now=LATER)
    assert "0 of 40 predictions have a label" in few[0].refused


def test_a_selection_is_told(scored):
    score, truth = scored
    known = np.where(score > 0.15, truth, np.nan)
    found = measured(
        daily(score, known, rows=5000), task="binary", every=DAY, now=LATER, metrics=("brier",), resamples=20
    )
    assert "they are a selection" in found[0].notes[0]
    one = measured(
        daily(score[:500], truth[:500], rows=500, cluster=np.zeros(500)),
        task="binary",
        every=DAY,
        now=LATER,
        metrics=("brier",),
    )
    assert "one cluster" in one[0].notes[0]
    assert one[0].figures["brier"].low is None


def test_sampled_labels_stand_for_all_by_their_chances(scored):
    """Labels wanted where the model is unsure: the plain mean is far off, the weighted one is not."""
    score, truth = scored
    generator = np.random.default_rng(3)
    chance = np.where(np.abs(score - 0.5) < 0.25, 0.9, 0.15)
    known = np.where(generator.random(len(score)) < chance, truth, np.nan)
    whole = float(((score - truth) ** 2).mean())
    rows = daily(score, known, rows=len(score), label_chance=chance)
    found = measured(rows, task="binary", every=DAY, now=LATER, metrics=("brier", "roc_auc"), resamples=300)[0]
    assert found.weighted
    assert found.refused is None
    assert found.notes == ()
    figure = found.figures["brier"]
    assert figure.low < whole < figure.high
    labelled = np.isfinite(known)
    assert float(((score - known)[labelled] ** 2).mean()) > figure.high


def test_rows_that_cannot_be_are_refused():
    score, truth = np.full(4, 0.5), np.zeros(4)
    times = np.datetime64("2020-01-01", "us") + np.arange(4).astype("timedelta64[h]")
    with pytest.raises(DataError, match="3 values of truth"):
        PredictionRows(time=times, score=score, truth=truth[:3])
    with pytest.raises(DataError, match="no time or no finite score"):
        PredictionRows(time=times, score=np.array([0.5, np.nan, 0.5, 0.5]), truth=truth)
    with pytest.raises(DataError, match="above 0 and at most 1"):
        PredictionRows(time=times, score=score, truth=truth, label_chance=np.array([0.0, 1, 1, 1]))


def test_an_estimate_follows_the_truth_that_the_scores_know(scored):
    score, truth = scored
    estimator = learn_estimator(daily(score, truth, rows=500), every=DAY)
    assert estimator.refused is None
    generator = np.random.default_rng(4)
    x = np.r_[generator.normal(0, 1.5, 4000), generator.normal(0, 0.6, 4000)]  # later rows are less sure
    current = daily(sigmoid(x), (generator.random(8000) < sigmoid(x)).astype(float), rows=1000)
    hidden = daily(sigmoid(x), np.full(8000, np.nan), rows=1000)
    found = estimate_windows(estimator, hidden, every=DAY)
    words = [one.figures["accuracy"].word for one in found]
    assert words[4:] == ["worse"] * 4
    assert "worse" not in words[:4]
    truths = measured(current, task="binary", every=DAY, now=LATER, metrics=("accuracy", "brier"), resamples=20)
    audits = audited(estimator, found, truths)
    assert set(audits) == {"accuracy", "brier"}
    assert audits["accuracy"].holds
    assert audits["accuracy"].mean_absolute_error < audits["accuracy"].unmoved
    assert audited(estimator, found, ()) == {}


def test_a_changed_truth_is_not_seen_by_an_estimate_and_shown_by_its_audit(scored):
    score, truth = scored
    estimator = learn_estimator(daily(score, truth, rows=500), every=DAY)
    generator = np.random.default_rng(5)
    x = generator.normal(0, 1.5, 8000)
    current = daily(sigmoid(x), (generator.random(8000) < sigmoid(-0.5 * x)).astype(float), rows=1000)
    found = estimate_windows(estimator, current, every=DAY)
    assert {one.figures["accuracy"].word for one in found} <= {"cannot_tell", "not_worse"}
    truths = measured(current, task="binary", every=DAY, now=LATER, metrics=("accuracy",), resamples=20)
    assert not audited(estimator, found, truths)["accuracy"].holds
    told = estimate_windows(estimator, current, every=DAY, kind="concept")
    assert all("cannot see that" in one.refused and not one.figures for one in told)


def test_what_no_estimate_may_stand_on_is_refused(scored):
    score, truth = scored
    few = learn_estimator(daily(score[:200], truth[:200], rows=500), every=DAY)
    assert "too few" in few.refused
    assert "too few" in estimate_windows(few, daily(score, truth, rows=500), every=DAY)[0].refused
    assert "no probabilities" in learn_estimator(daily(score * 9, truth, rows=500), every=DAY).refused
    boastful = sigmoid(2.5 * np.log(score / (1 - score)))
    assert "not calibrated" in learn_estimator(daily(boastful, truth, rows=500), every=DAY, calibrate=False).refused
    assert learn_estimator(daily(boastful, truth, rows=500), every=DAY).refused is None
    assert learn_estimator(daily(score, truth, rows=500), every=DAY, calibrate=False).refused is None


def test_days_that_move_together_widen_the_estimate():
    generator = np.random.default_rng(6)
    x = generator.normal(0, 1.5, 40 * 400)
    day = np.repeat(generator.normal(0, 0.8, 40), 400)
    truth = (generator.random(len(x)) < sigmoid(x + day)).astype(float)
    assert learn_estimator(daily(sigmoid(x), truth, rows=400), every=DAY).spread > 2


@pytest.mark.parametrize("measure", ["mae", "mse", "rmse"])
def test_a_regressions_loss_is_estimated_from_its_inputs(measure):
    """Noise grows with an input; rows with more of it lose more, which the estimate knows without labels."""
    generator = np.random.default_rng(7)
    x = generator.uniform(0, 1, (3000, 2))
    truth = x[:, 0] + generator.normal(0, 0.1 + x[:, 1])
    model = learn_loss(x[:2000], daily(x[:2000, 0], truth[:2000], rows=100), names=("a", "b"), measure=measure)
    later = np.flatnonzero(np.r_[np.zeros(2000, bool), x[2000:, 1] > 0.5])
    found = estimate_loss(model, x[later], x[later, 0])
    error = truth[later] - x[later, 0]
    lost = {"mae": np.abs, "mse": np.square, "rmse": np.square}[measure]
    root = np.sqrt if measure == "rmse" else float
    assert found.figure.low < root(lost(error).mean()) < found.figure.high
    before = root(lost(truth[:2000] - x[:2000, 0]).mean())
    assert found.figure.low > before
    assert model.before[0] < before < model.before[2]
    assert model.before[1] == pytest.approx(before)
    assert found.figure.word == "worse"
    alike = np.flatnonzero(np.r_[np.zeros(2000, bool), np.ones(1000, bool)])
    assert estimate_loss(model, x[alike], x[alike, 0]).figure.word in ("cannot_tell", "not_worse")
    easy = np.flatnonzero(np.r_[np.zeros(2000, bool), x[2000:, 1] < 0.5])
    assert estimate_loss(model, x[easy], x[easy, 0]).figure.word == "better"
    assert tells_rows_apart(model)
    each = row_losses(model, x[later], x[later, 0])
    assert np.corrcoef(each, x[later, 1])[0, 1] > 0.5
    level = x[:2000, 0] + generator.normal(0, 1, 2000)
    alike = learn_loss(x[:2000], daily(x[:2000, 0], level, rows=100), names=("a", "b"), measure=measure)
    assert not tells_rows_apart(alike)
    assert "cannot see" in estimate_loss(model, x[later], x[later, 0], kind="concept").refused
    assert "too few" in estimate_loss(model, x[:20], x[:20, 0]).refused
    beyond = x[later] + [0, 1]
    assert '"b" beyond every value' in estimate_loss(model, beyond, x[later, 0]).refused
    with pytest.raises(DataError, match="all rows with labels are of one cluster"):
        learn_loss(
            x[:2000],
            daily(x[:2000, 0], truth[:2000], rows=100, cluster=np.full(2000, 7)),
            names=("a", "b"),
            measure=measure,
        )
    with pytest.raises(DataError, match="do not fit"):
        learn_loss(x[:2000], daily(x[:2000, 0], truth[:2000], rows=100), names=("a",), measure=measure)
    with pytest.raises(DataError, match="too few to learn a loss"):
        learn_loss(x[:300], daily(x[:300, 0], truth[:300], rows=100), names=("a", "b"), measure=measure)

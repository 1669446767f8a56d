"""Every metric against scikit-learn, ties included, and a weighting against rows really repeated."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from cumulant.statistics import METRICS, Rows, average_precision, metric, metrics_for, roc_auc
from cumulant.statistics import ranking as ranking_module

# few distinct scores, so that ties are common
scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 1.0])
binary_rows = st.lists(st.tuples(st.booleans(), scores), min_size=2, max_size=60).filter(
    lambda rows: len({truth for truth, _ in rows}) == 2
)


def arrays(rows):
    return np.array([float(truth) for truth, _ in rows]), np.array([score for _, score in rows])


@given(binary_rows)
@settings(max_examples=150, deadline=None)
def test_ranking_metrics_equal_scikit_learn_with_ties(rows):
    truth, score = arrays(rows)
    assert average_precision(truth, score) == pytest.approx(oracle.average_precision_score(truth, score), abs=1e-12)
    assert roc_auc(truth, score) == pytest.approx(oracle.roc_auc_score(truth, score), abs=1e-12)


@given(binary_rows)
@settings(max_examples=100, deadline=None)
def test_metrics_of_probabilities_and_decisions_equal_scikit_learn(rows):
    truth, score = arrays(rows)
    held = Rows(truth=truth, prediction=score)
    said = score >= 0.5
    clipped = np.clip(score, 1e-15, 1 - 1e-15)
    expected = {
        "log_loss": oracle.log_loss(truth, clipped),
        "brier": oracle.brier_score_loss(truth, score),
        "accuracy": oracle.accuracy_score(truth, said),
        "recall": oracle.recall_score(truth, said),
        "f1": oracle.f1_score(truth, said),
    }
    for name, value in expected.items():
        assert METRICS[name].value(held) == pytest.approx(value, rel=1e-4, abs=1e-9), name
    if said.any():
        assert METRICS["precision"].value(held) == pytest.approx(oracle.precision_score(truth, said))
    else:
        assert math.isnan(METRICS["precision"].value(held))


many = st.integers(2, 5).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, classes - 1), st.lists(st.floats(0.01, 1), min_size=classes, max_size=classes)),
        min_size=1,
        max_size=40,
    )
)


@given(many)
@settings(max_examples=100, deadline=None)
def test_multiclass_metrics_equal_scikit_learn(rows):
    truth = np.array([row[0] for row in rows])
    probability = np.array([row[1] for row in rows])
    probability /= probability.sum(axis=1, keepdims=True)
    held = Rows(truth=truth.astype(float), prediction=probability)
    labels, said = np.arange(probability.shape[1]), probability.argmax(axis=1)
    assert METRICS["accuracy"].value(held) == pytest.approx(oracle.accuracy_score(truth, said))
    expected = oracle.f1_score(truth, said, labels=labels, average="macro", zero_division=0)
    assert METRICS["macro_f1"].value(held) == pytest.approx(expected)
    loss = -np.log(probability[np.arange(len(truth)), truth]).mean()
    assert METRICS["log_loss"].value(held) == pytest.approx(loss)
    squared = ((probability - np.eye(len(labels))[truth]) ** 2).sum(axis=1).mean()
    assert METRICS["brier"].value(held) == pytest.approx(squared)


numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=40))
@settings(max_examples=100, deadline=None)
def test_regression_metrics_equal_scikit_learn(rows):
    truth, guess = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    held = Rows(truth=truth, prediction=guess)
    assert METRICS["mae"].value(held) == pytest.approx(oracle.mean_absolute_error(truth, guess))
    assert METRICS["rmse"].value(held) == pytest.approx(oracle.root_mean_squared_error(truth, guess))
    assert METRICS["pinball"].value(held) == pytest.approx(oracle.mean_pinball_loss(truth, guess))
    assert metric("pinball_90").value(held) == pytest.approx(oracle.mean_pinball_loss(truth, guess, alpha=0.9))
    if np.ptp(truth) > 1e-2:
        assert METRICS["r2"].value(held) == pytest.approx(oracle.r2_score(truth, guess), rel=1e-6)


def test_r2_keeps_its_digits_far_from_zero():
    generator = np.random.default_rng(0)
    truth = 1e9 + generator.normal(size=500)
    guess = truth + generator.normal(scale=0.5, size=500)
    held = Rows(truth=truth, prediction=guess)
    assert METRICS["r2"].value(held) == pytest.approx(oracle.r2_score(truth, guess), abs=1e-9)
    assert math.isnan(METRICS["r2"].value(Rows(truth=np.ones(3), prediction=np.zeros(3))))


def test_calibration_error_by_hand():
    # two bins: 0.15 said where half came true (gap 0.35, 4 rows), 0.95 said where all did (gap 0.05, 1 row)
    held = Rows(truth=np.array([1.0, 1, 0, 0, 1]), prediction=np.array([0.15, 0.15, 0.15, 0.15, 0.95]))
    assert METRICS["calibration_error"].value(held) == pytest.approx((4 * 0.35 + 0.05) / 5)
    three = Rows(truth=np.array([0.0, 1.0]), prediction=np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]]))
    assert METRICS["calibration_error"].value(three) == pytest.approx(0.1)


def test_cost_counts_wrong_decisions_only():
    held = Rows(
        truth=np.array([1.0, 1, 0, 0]),
        prediction=np.array([0.9, 0.1, 0.9, 0.1]),
        decision=np.array([True, False, True, False]),
        cost_false_negative=np.array([7.0, 5, 3, 1]),
        cost_false_positive=np.array([2.0, 2, 4, 2]),
    )
    assert METRICS["cost"].value(held) == pytest.approx((5 + 4) / 4)
    with pytest.raises(ValueError, match="no cost"):
        METRICS["cost"].value(Rows(truth=np.zeros(1), prediction=np.zeros(1)))


clustered = st.lists(st.tuples(st.booleans(), scores, st.integers(0, 4)), min_size=3, max_size=40)


@given(clustered, st.lists(st.integers(0, 3), min_size=5, max_size=5), st.sampled_from([0, 10**6]))
@settings(max_examples=300, deadline=None)
def test_a_weighting_of_clusters_equals_rows_repeated(rows, weights, cells):
    truth = np.array([float(row[0]) for row in rows])
    score = np.array([row[1] for row in rows])
    cluster = np.array([row[2] for row in rows], dtype=np.int64)
    cluster[0] = 4  # so that the weights fit the number of clusters
    ones = np.ones(len(rows))
    held = Rows(truth=truth, prediction=score, cluster=cluster, cost_false_negative=3 * ones, cost_false_positive=ones)
    times = np.array(weights)[cluster]
    repeated = {
        "truth": np.repeat(truth, times),
        "prediction": np.repeat(score, times),
        "cost_false_negative": np.full(times.sum(), 3.0),
        "cost_false_positive": np.ones(times.sum()),
    }
    with pytest.MonkeyPatch.context() as patch:  # both ways of counting: the table and the rows
        patch.setattr(ranking_module, "_DENSE_CELLS_PER_ROW", cells)
        for found in metrics_for("binary", costs=True):
            (value,) = found.prepare(held)(np.array([weights], dtype=float))
            expected = found.value(Rows(**repeated)) if times.sum() else math.nan
            assert value == pytest.approx(expected, abs=1e-12, nan_ok=True), found.name


def test_undefined_values_are_nan_and_unknown_names_are_refused():
    none = Rows(truth=np.zeros(3), prediction=np.array([0.1, 0.2, 0.3]))
    assert math.isnan(METRICS["average_precision"].value(none))
    assert math.isnan(METRICS["roc_auc"].value(none))
    for name in ("apples", "pinball_0", "pinball_"):
        with pytest.raises(KeyError):
            metric(name)
    assert [found.name for found in metrics_for("regression")] == ["mae", "rmse", "r2", "pinball"]
    assert "cost" not in {found.name for found in metrics_for("binary")}


def drawn(rows, clusters, resamples):
    draw = np.random.default_rng(rows)
    held = Rows(
        truth=(draw.random(rows) < 0.3).astype(np.float64),
        prediction=np.round(draw.random(rows), 4),
        cluster=np.sort(draw.integers(0, clusters, rows)),
    )
    return ranking_module.Ranking(held), draw.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


@pytest.mark.parametrize("cells", [1, 1000, 7919, 50_000])
def test_resamples_in_parts_are_the_same_to_the_last_bit(monkeypatch, cells):
    for rows in (37, 2000, 20_011):
        ranking, weights = drawn(rows, 12, 97)
        monkeypatch.setattr(ranking_module, "_MOST_CELLS", 1 << 40)
        whole = ranking.average_precision(weights.astype(float)), ranking.roc_auc(weights.astype(float))
        monkeypatch.setattr(ranking_module, "_MOST_CELLS", cells)
        parts = ranking.average_precision(weights.astype(float)), ranking.roc_auc(weights.astype(float))
        assert all(one.tobytes() == other.tobytes() for one, other in zip(whole, parts, strict=True))


def test_weights_that_are_not_whole_are_not_taken_apart(monkeypatch):
    """Their sums depend on the order of summation, which is that of the library for matrices of this size."""
    ranking, weights = drawn(2000, 12, 40)
    whole = ranking.average_precision(weights + 0.1)
    monkeypatch.setattr(ranking_module, "_MOST_CELLS", 1)
    assert ranking.average_precision(weights + 0.1).tobytes() == whole.tobytes()


def test_memory_of_resamples_does_not_grow_with_their_number():
    """1,000 resamples of 10,000 levels would take 240 MB at once."""
    ranking, weights = drawn(60_000, 12, 1000)
    tracemalloc.start()
    ranking.average_precision(weights.astype(float))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20, peak

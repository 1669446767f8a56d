"""Metrics with intervals, slices and curves of a model, and pictures of them."""

import json
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn import metrics as oracle

from cumulant.core.errors import NotFoundError, StorageError, UsageError
from cumulant.flows.reports.model_content import alerts_a_day
from cumulant.flows.reports.registry_plots import save_plots
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.evaluation import evaluate, scored
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.records import Evaluation
from cumulant.training.search.search import search
from cumulant.training.spec import DecisionCost
from cumulant.training.splits import split

DAY = 86_400_000_000


def rows_of_days(days=40, size=50, *, rate=0.2, seed=0, task="binary"):
    """Rows of a binary target with honest probabilities; costs; a slice column."""
    generator = np.random.default_rng(seed)
    count = days * size
    chance = np.clip(generator.beta(1, 4, count) * rate / 0.2, 0, 1)
    rows = TrainingSet(
        features=pl.DataFrame({"x": chance, "size": generator.integers(0, 1000, count)}),
        target=(generator.random(count) < chance).astype(float),
        task=task,
        classes=("no", "yes"),
        at=np.repeat(np.arange(days), size) * DAY + generator.integers(0, DAY, count),
        slices=pl.DataFrame({"shop": generator.choice(["a", "b", "c", None], count, p=[0.6, 0.3, 0.09, 0.01])}),
        false_negative=np.full(count, 4.0),
        false_positive=np.ones(count),
        rows=np.arange(count),
    )
    return rows, chance


def test_all_metrics_have_values_inside_their_intervals():
    rows, chance = rows_of_days()
    found = evaluate(rows, chance, threshold=0.2)
    assert (found.cluster, found.clusters, found.rows, found.threshold) == ("day", 40, 2000, 0.2)
    said = chance >= 0.2
    expected = {
        "average_precision": oracle.average_precision_score(rows.target, chance),
        "roc_auc": oracle.roc_auc_score(rows.target, chance),
        "brier": oracle.brier_score_loss(rows.target, chance),
        "recall": oracle.recall_score(rows.target, said),
        "cost": (4 * (rows.target * ~said).sum() + ((1 - rows.target) * said).sum()) / 2000,
    }
    for name, value in expected.items():
        assert found.metrics[name].value == pytest.approx(value), name
    for name, one in found.metrics.items():
        assert one.low <= one.value <= one.high, name
        assert one.clusters == 40
    assert found.values()["brier"] == found.metrics["brier"].value
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found


def test_clusters_are_what_was_asked_for():
    rows, chance = rows_of_days(days=3)
    found = evaluate(rows, chance)
    assert (found.cluster, found.clusters) == ("day", 3)
    assert "spans 3 days" in found.notes[0]
    single, chances = rows_of_days(days=1)
    alone = evaluate(single, chances)
    assert (alone.clusters, alone.metrics["log_loss"].low) == (1, None)
    assert "one day" in alone.notes[0]
    assert evaluate(rows, chance, EvaluationPolicy(clusters="row")).clusters == len(rows)
    assert evaluate(rows, chance, EvaluationPolicy(clusters="shop")).clusters == rows.slices["shop"].n_unique()
    assert evaluate(rows, chance, EvaluationPolicy(clusters="day")).clusters == 3
    with pytest.raises(UsageError, match="no column"):
        evaluate(rows, chance, EvaluationPolicy(clusters="shops"))
    from dataclasses import replace

    timeless = replace(rows, at=None)
    assert evaluate(timeless, chance).cluster == "row"
    assert evaluate(replace(timeless, groups=np.arange(len(rows)) // 10), chance).clusters == len(rows) // 10
    with pytest.raises(UsageError, match="rows have no time"):
        evaluate(timeless, chance, EvaluationPolicy(clusters="day"))


@pytest.mark.parametrize("days", [3, 5, 7])
def test_intervals_over_few_days_hold_the_truth(days):
    """Days differ by more than their rows do: 95% of the intervals hold what is true of all days."""
    held, runs = 0, 150
    for seed in range(runs):
        generator = np.random.default_rng([days, seed])
        size = 60
        loss = np.repeat(generator.normal(1.0, 0.1, days), size) + generator.normal(0, 0.1, days * size)
        rows = TrainingSet(
            features=pl.DataFrame({"x": loss}),
            target=np.zeros(len(loss)),
            task="regression",
            at=np.repeat(np.arange(days), size) * DAY + generator.integers(0, DAY, len(loss)),
            rows=np.arange(len(loss)),
        )
        found = evaluate(rows, loss, resamples=200).metrics["mae"]
        held += found.low <= 1.0 <= found.high
    assert held / runs > 0.91


def test_slices_hold_every_row_once():
    rows, chance = rows_of_days()
    found = evaluate(rows, chance, EvaluationPolicy(slices=["shop", "size"]))
    shops = [one for one in found.slices if one.column == "shop"]
    assert [one.value for one in shops] == ["a", "b", "c", "missing"]
    assert sum(one.rows for one in shops) == len(rows)
    assert shops[-1].metrics == {}  # too few rows to measure
    sizes = [one for one in found.slices if one.column == "size"]
    assert len(sizes) == 4
    assert sum(one.rows for one in sizes) == len(rows)
    mask = (rows.slices["shop"] == "b").fill_null(value=False).to_numpy()
    expected = oracle.roc_auc_score(rows.target[mask], chance[mask])
    assert shops[1].metrics["roc_auc"].value == pytest.approx(expected)
    with pytest.raises(NotFoundError, match="shops"):
        evaluate(rows, chance, EvaluationPolicy(slices=["shops"]))


def test_many_values_of_a_slice_are_gathered():
    rows, chance = rows_of_days()
    from dataclasses import replace

    many = replace(rows, slices=pl.DataFrame({"place": [f"p{number % 30}" for number in range(len(rows))]}))
    found = evaluate(many, chance, EvaluationPolicy(slices=["place"]))
    assert found.slices[-1].value == "18 others"
    assert sum(one.rows for one in found.slices) == len(rows)


def test_curves_are_short_and_right():
    rows, chance = rows_of_days()
    found = evaluate(rows, chance).curves
    assert set(found) == {"roc", "precision_recall", "calibration", "reliability", "threshold", "scores"}
    for curve in found.values():
        lengths = {len(column) for column in curve.columns.values()}
        assert len(lengths) == 1
        assert lengths.pop() <= 121
    table = found["threshold"].columns
    place = len(table["threshold"]) // 2
    limit = table["threshold"][place]
    said = chance >= limit - 1e-6
    assert table["recall"][place] == pytest.approx(oracle.recall_score(rows.target, said), rel=0.01)
    assert table["precision"][place] == pytest.approx(oracle.precision_score(rows.target, said), rel=0.01)
    assert table["alerts_a_day"][place] == pytest.approx(said.sum() / 40, rel=0.03)
    area = np.trapezoid(found["roc"].columns["true_positive_rate"], found["roc"].columns["false_positive_rate"])
    assert area == pytest.approx(oracle.roc_auc_score(rows.target, chance), abs=0.01)
    observed = np.array(found["calibration"].columns["observed"])
    assert np.abs(observed - np.array(found["calibration"].columns["predicted"])).max() < 0.1
    fit = {name: np.array(column) for name, column in found["reliability"].columns.items()}
    assert ((fit["low"] <= fit["observed"]) & (fit["observed"] <= fit["high"])).mean() > 0.8


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (np.repeat([0, DAY], 500), 2),  # rows of dates: a day each
        (np.repeat([0, DAY, 2 * DAY, 2 * DAY], 250), 3),
        (np.linspace(0, DAY / 4, 1000), 0.25),
        (np.linspace(0, 10 * DAY - 1, 1000), 10),
        (np.zeros(1000), 1),
    ],
)
def test_alerts_are_counted_by_the_days_that_rows_fill(times, days):
    target = np.arange(1000) % 10 == 0
    rows = TrainingSet(
        features=pl.DataFrame({"x": np.zeros(1000)}),
        target=target.astype(float),
        task="binary",
        classes=("0", "1"),
        at=times.astype(np.int64),
        rows=np.arange(1000),
    )
    for scores, alerts in ((np.where(target, 0.8, 0.2), 100), (np.where(target, 0.2, 0.8), 900), (np.zeros(1000), 0)):
        found = evaluate(rows, scores, threshold=0.5, resamples=20)
        assert found.alerts == alerts
        assert found.days == pytest.approx(days, rel=0.01)
        assert alerts_a_day(found) == pytest.approx(alerts / days, rel=0.01)


@pytest.mark.parametrize("target", ["late", "kind", "amount"])
def test_every_task_is_evaluated_and_drawn(target, table, rows_of, tmp_path):
    parts = split(rows_of(target, table), EvaluationPolicy(test=0.3))
    model = search(parts.train, TrainingPolicy(target=target, trials=1, time=None, folds=2)).best
    found = evaluate(parts.test, model, EvaluationPolicy(slices=["shop"]), resamples=200)
    assert all(one.value is not None for one in found.metrics.values())
    json.loads(msgspec.json.encode(found))
    files = save_plots(found, tmp_path / "plots", title="a model")
    names = {file.stem for file in files}
    assert {"calibration", "importance"} <= names
    for file in files:
        assert file.suffix == ".svg"
        assert ET.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    measured = scored(parts.test, model)
    assert (measured.decision is not None) is (target == "late")


def test_plots_that_cannot_be_written_are_told(tmp_path):
    rows, chance = rows_of_days()
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written"):
        save_plots(evaluate(rows, chance, resamples=10), tmp_path / "taken")


def test_a_test_of_one_class_is_measured_as_far_as_it_goes():
    rows, chance = rows_of_days(rate=0.0)
    found = evaluate(rows, chance)
    assert found.metrics["average_precision"].value is None
    assert found.metrics["brier"].value is not None
    assert set(found.curves) == {"calibration", "reliability", "scores"}


def test_costs_of_a_spec_reach_the_metric(table, rows_of):
    rows = rows_of("late", table, cost=DecisionCost(false_negative="loss", false_positive=1))
    always = evaluate(rows, np.ones(len(rows)))
    assert always.metrics["cost"].value == pytest.approx((1 - rows.target).mean())
    never = evaluate(rows, np.zeros(len(rows)))
    assert never.metrics["cost"].value == pytest.approx((rows.target * rows.false_negative).mean())

"""Thresholds against brute force over every threshold there is, and sigmoid calibration."""

import re

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core import units
from cumulant.core.errors import UsageError
from cumulant.core.servable import Calibration
from cumulant.core.units import Rate
from cumulant.project.file.document import parse_document
from cumulant.project.training_section import threshold_policy
from cumulant.statistics.performance.calibration import logit
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.calibration import apply, choose, fit_sigmoid
from cumulant.training.evaluation.threshold import advice, cheapest, decide, highest
from cumulant.training.evaluation.traffic_rows import ScoredTraffic
from cumulant.training.policy import ThresholdPolicy, TrainingPolicy
from cumulant.training.spec import DecisionCost, Threshold, TrainingSpec

scores = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.50001, 0.9, 1.0]), min_size=1, max_size=25)
DAY = 86_400_000_000


@given(scores, st.data())
@settings(max_examples=300, deadline=None)
def test_the_cheapest_threshold_is_the_cheapest_of_all(values, data):
    count = len(values)
    p = np.array(values)
    truth = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=count, max_size=count)))
    missed = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), dtype=float)
    alarm = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), dtype=float)

    def cost(limit):
        yes = p >= limit
        return float((missed * (truth > 0.5) * ~yes).sum() + (alarm * (truth < 0.5) * yes).sum())

    found = cost(cheapest(truth, p, missed, alarm))
    assert found == min(cost(limit) for limit in [*values, 0.0, 2.0])


@given(scores, st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_the_highest_scores_fill_a_capacity_without_passing_it(values, capacity):
    p = np.array(values)
    taken = int((p >= highest(p, capacity)).sum())
    possible = [int((p >= limit).sum()) for limit in [*values, 2.0]]
    assert taken == max(count for count in possible if count <= capacity)


def rows_of(target, *, days=None, missed=None, alarm=None):
    return TrainingSet(
        features=pl.DataFrame({"x": np.zeros(len(target))}),
        target=np.asarray(target, dtype=float),
        task="binary",
        classes=("0", "1"),
        at=None if days is None else np.asarray(days) * DAY,
        false_negative=missed,
        false_positive=alarm,
        rows=np.arange(len(target)),
    )


def spec(**options):
    return TrainingPolicy(target="y", **options)


def test_each_way_to_a_threshold():
    generator = np.random.default_rng(0)
    p = generator.random(1000)
    target = (generator.random(1000) < p).astype(float)
    days = np.repeat(np.arange(10), 100)
    rows = rows_of(target, days=days)
    assert decide(spec(), rows, p)[0] == 0.5
    assert decide(spec(threshold=0.3), rows, p)[0] == 0.3
    assert decide(spec(cost=DecisionCost(false_negative=5, false_positive=1)), rows, p)[0] == pytest.approx(1 / 6)
    limit, text = decide(spec(threshold=ThresholdPolicy(alerts=Rate(7, "day"))), rows, p)
    assert (p >= limit).sum() == 70
    assert "10 days" in text
    half = ScoredTraffic(scores=p, sampling_weight=np.full(1000, 2.0), at=rows.at)
    limit, _ = decide(spec(threshold=ThresholdPolicy(alerts=Rate(7, "day"))), rows, p, traffic=half)
    assert (p >= limit).sum() == 35
    limit, _ = decide(spec(threshold=ThresholdPolicy(rate=0.02)), rows, p)
    assert (p >= limit).sum() == 20
    by_row = rows_of(target, missed=np.full(1000, 5.0), alarm=np.ones(1000))
    limit, _ = decide(spec(cost=DecisionCost(false_negative="loss", false_positive=1)), by_row, p)
    assert limit == pytest.approx(1 / 6, abs=0.1)  # what calibrated probabilities would give, found in the rows


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": ThresholdPolicy(alerts=Rate(5, "day"))}, "needs rows with a time"),
        ({"threshold": ThresholdPolicy()}, "needs one of"),
        ({"threshold": ThresholdPolicy(alerts=Rate(5, "day"), rate=0.1)}, "needs one of"),
        ({"threshold": 2.0}, "no probability"),
        ({"cost": DecisionCost(false_negative=0, false_positive=0)}, "both costs"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        decide(spec(**options), rows_of([0, 1]), np.array([0.1, 0.9]))


@pytest.mark.parametrize("alerts", ["many", "5/month", "5"])
def test_a_capacity_is_a_number_an_hour_a_day_or_a_week(alerts):
    with pytest.raises(UsageError, match=f'"{alerts}" is no capacity'):
        threshold_policy(Threshold(alerts=alerts))


def test_a_sigmoid_is_found_and_kept_only_where_it_helps():
    generator = np.random.default_rng(2)
    honest = 1 / (1 + np.exp(-generator.normal(size=6000) * 1.5))
    truth = (generator.random(6000) < honest).astype(float)
    part = np.arange(6000) % 4
    assert choose("auto", truth, honest, part) == Calibration()
    bold = apply(Calibration(kind="sigmoid", a=3.0, b=1.0), honest)
    found = choose("auto", truth, bold, part)
    assert found.kind == "sigmoid"
    assert np.abs(apply(found, bold) - honest).max() < 0.05
    assert choose("none", truth, bold, part) == Calibration()
    assert choose("sigmoid", truth, honest, part).kind == "sigmoid"
    assert choose("sigmoid", np.zeros(6000), honest, part) == Calibration()


def test_a_sigmoid_maximises_the_likelihood():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(3)
    p = generator.random(3000) ** 2
    truth = (generator.random(3000) < p**0.7).astype(float)
    found = fit_sigmoid(truth, p)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(p)[:, None], truth)
    assert found.a == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
    assert found.b == pytest.approx(oracle.intercept_[0], abs=1e-3)
    assert np.isfinite(apply(found, np.array([0.0, 1.0]))).all()


def test_rare_positives_without_a_price_are_told_with_the_lines_to_add():
    said = advice(0.008, timed=True)
    assert said is not None
    assert "only 0.8% of the rows are positive" in said
    for line in ("cost: {false_negative: 125, false_positive: 1}", "threshold: {rate: 0.8%}", "threshold: {alerts: "):
        assert line in said
    assert "alerts" not in (advice(0.008, timed=False) or "alerts")
    assert advice(0.1, timed=True) is None
    assert advice(0.0, timed=True) is None


@pytest.mark.parametrize("share", [0.0004, 0.008, 0.0123, 0.0999])
def test_the_advised_lines_can_stand_in_a_project_file(share):
    said = advice(share, timed=True)
    assert said is not None
    lines = re.findall("`((?:cost|threshold): [^`]+)`", said)
    assert len(lines) == 3
    for line in lines:
        text = f"version: 1\ntraining:\n  target: y\n  {line}\n"
        found = msgspec.convert(parse_document(text, "cumulant.yaml").plain()["training"], TrainingSpec)
        if isinstance(found.threshold, Threshold) and found.threshold.rate is not None:
            assert units.share(found.threshold.rate) == pytest.approx(share, rel=0.05)

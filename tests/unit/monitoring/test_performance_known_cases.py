"""Right on known cases: real data whose changes are known."""

import numpy as np
import pytest
from performance_support import DAY, DRIFT, LATER, START, car_loan, daily, employment, followed, needs_drift

from cumulant.monitoring.performance.baselines import HarmPolicy
from cumulant.monitoring.performance.labelled import measured
from cumulant.monitoring.performance.refits import recent_refits
from cumulant.monitoring.performance.unlabelled import audited, estimate_windows, learn_estimator

pytestmark = needs_drift


@pytest.fixture(scope="module")
def loans():
    return car_loan()


def test_car_loan_alarms_in_the_sixth_tenth_and_not_before(loans):
    told, _ = followed(*loans)
    assert [one.word == "worse" for one in told] == [False] * 5 + [True] * 5
    assert {one.kind for one in told} == {None, "covariate"}  # rows became harder; its scores know
    skill = next(one for one in told[5].findings if one.question == "skill")
    assert skill.since == START + 5 * DAY


def test_car_loan_is_seen_without_labels_and_audited_with_them(loans):
    reference, analysis = loans
    estimator = learn_estimator(reference, every=DAY)
    found = estimate_windows(estimator, analysis, every=DAY)
    assert [one.figures["accuracy"].word == "worse" for one in found] == [False] * 5 + [True] * 5
    truths = measured(analysis, task="binary", every=DAY, now=LATER, metrics=("accuracy",), resamples=20)
    audit = audited(estimator, found, truths)["accuracy"]
    assert audit.holds
    assert audit.mean_absolute_error < audit.unmoved / 3


def test_employment_is_the_control_and_does_not_alarm():
    reference, analysis = employment()
    told, _ = followed(reference, analysis)
    assert "worse" not in {one.word for one in told}
    found = estimate_windows(learn_estimator(reference, every=DAY), analysis, every=DAY)
    assert "worse" not in {figure.word for one in found for figure in one.figures.values()}


def trees(inputs, truths):
    import lightgbm

    settings = {
        "objective": "binary",
        "num_leaves": 8,
        "learning_rate": 0.1,
        "min_data_in_leaf": 40,
        "num_threads": 1,
        "verbose": -1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": 1,
    }
    data = lightgbm.Dataset(np.concatenate(inputs), np.concatenate(truths))
    booster = lightgbm.train(settings, data, 60)
    return lambda window: booster.predict(window, num_threads=1)


@pytest.mark.parametrize("broken", [12_500, 25_000, 37_500])
def test_sea_finds_each_break_soon_and_nothing_before(broken):
    """A model of the 5,000 rows that begin 9,500 before the break, judged from 4,500 before it; windows of 500."""
    import polars as pl

    rows = pl.read_parquet(DRIFT / "losing_SEA_4concepts.parquet")[broken - 9500 : broken + 6000]
    inputs, truth = rows.select("x0", "x1", "x2").to_numpy(), rows["y"].to_numpy().astype(float)
    model = trees([inputs[:5000]], [truth[:5000]])
    score = model(inputs)
    reference, current = daily(score[5000:7000], truth[5000:7000], rows=500), slice(7000, None)
    windows = np.arange(len(truth)).reshape(-1, 500)
    refits = recent_refits([inputs[one] for one in windows], [truth[one] for one in windows], trees, memory=4)
    told, _ = followed(
        reference, daily(score[current], truth[current], rows=500), refits=refits[14:], terms=HarmPolicy()
    )
    first = next(number for number, one in enumerate(told) if one.word == "worse")
    assert 5 <= first < 5 + 10  # the break is at the end of the fifth window; at most 5,000 rows later
    assert told[first].kind == "concept"
    since = min(one.since for one in told[first].findings if one.since is not None)
    assert abs((since - START) / DAY - 5) <= 2

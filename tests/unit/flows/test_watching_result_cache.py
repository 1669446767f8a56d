"""What was learned from test rows and stored says what it said before; it is learned again where it is damaged."""

import os
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from cumulant.flows.monitoring.result_cache import ResultCache, remove_oldest
from cumulant.monitoring.performance.multiclass import ClassEstimators, estimate_class_windows, learn_estimators
from cumulant.monitoring.performance.rows import PredictionRows
from cumulant.monitoring.performance.unlabelled import Estimator, estimate_windows, learn_estimator

DAY = timedelta(days=1)


def predictions(seed, rows=1200, classes=0):
    draw = np.random.default_rng(seed)
    time = np.datetime64("2026-01-01", "us") + np.sort(draw.integers(0, 20 * 86_400_000_000, rows)).astype("m8[us]")
    if classes:
        score = draw.dirichlet(np.ones(classes), rows)
        truth = (score.cumsum(axis=1) > draw.random((rows, 1))).argmax(axis=1).astype(float)
        return PredictionRows(time=time, score=score, truth=truth)
    score = draw.beta(2, 5, rows)
    return PredictionRows(time=time, score=score, truth=(draw.random(rows) < score).astype(float))


CASES = {
    "scores": (
        Estimator,
        lambda: learn_estimator(predictions(1), every=DAY),
        lambda one: estimate_windows(one, predictions(2), every=DAY),
    ),
    "no rows": (
        Estimator,
        lambda: learn_estimator(predictions(1, rows=3), every=DAY),
        lambda one: estimate_windows(one, predictions(2), every=DAY),
    ),
    "classes": (
        ClassEstimators,
        lambda: learn_estimators(predictions(1, classes=3), names=("a", "b", "c"), every=DAY),
        lambda one: estimate_class_windows(one, predictions(2, classes=3), every=DAY),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stored_estimator_estimates_as_the_learned_one(tmp_path, case):
    kind, learn, estimate = CASES[case]
    learned = []

    def make():
        learned.append(learn())
        return learned[-1]

    first = ResultCache(tmp_path, "k").get("e", kind, make)
    second = ResultCache(tmp_path, "k").get("e", kind, make)
    assert (len(learned), first) == (1, learned[0])
    assert msgspec.json.encode(estimate(second)) == msgspec.json.encode(estimate(first))
    (path,) = tmp_path.rglob("e")
    path.write_bytes(path.read_bytes()[:-1])
    ResultCache(tmp_path, "k").get("e", kind, make)
    ResultCache(tmp_path, "other").get("e", kind, make)
    assert len(learned) == 3


def test_the_folders_that_were_used_last_stay(tmp_path):
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        os.utime(tmp_path / str(number), (number, number))
    remove_oldest(tmp_path, "0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "3", "4", "5"]
    remove_oldest(tmp_path, "7")
    assert not (tmp_path / "7").exists()

"""Rules of retraining replayed over history: trainings and loss of each, on Elec2 and SEA with a light model.

.venv/bin/python bench/monitoring/backtest.py ../shared/data
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
from scipy.stats import ks_2samp

from cumulant.monitoring.backtest import History, ReplayTerms, backtest
from cumulant.monitoring.performance import HarmTerms
from cumulant.monitoring.policy import RetrainTerms

START = datetime(2020, 1, 1, tzinfo=UTC)
TREES = {
    "objective": "binary", "num_leaves": 8, "learning_rate": 0.1, "min_data_in_leaf": 40, "num_threads": 1,
    "verbose": -1, "deterministic": True, "force_row_wise": True, "seed": 1,
}  # fmt: skip


def trees(inputs, truths):
    data = lightgbm.Dataset(np.concatenate(inputs), np.concatenate(truths))
    booster = lightgbm.train(TREES, data, 60)
    return lambda window: booster.predict(window, num_threads=1)


def drifted(known, window):
    """A feature is 0.1 apart in Kolmogorov-Smirnov distance from what the model was trained on, and surely so."""
    before = np.concatenate(known)
    tests = [ks_2samp(before[:, at], window[:, at], method="asymp") for at in range(window.shape[1])]
    return any(one.statistic > 0.1 and one.pvalue < 0.05 / len(tests) for one in tests)


def shown(name, inputs, truth, rows, every, **terms):
    count = len(truth) // rows
    step = (
        every / np.timedelta64(1, "us") / rows
        if isinstance(every, np.timedelta64)
        else every / timedelta(microseconds=1) / rows
    )
    times = np.datetime64("2020-01-01", "us") + (np.arange(count * rows) * step).astype("timedelta64[us]")
    cut = [np.arange(number * rows, (number + 1) * rows) for number in range(count)]
    history = History(
        inputs=[inputs[one] for one in cut], truths=[truth[one] for one in cut], times=[times[one] for one in cut]
    )
    month = every * 4
    free = {"cool_down": timedelta(0), "least_labels": 0, "at_most": None}
    policies = {
        "default": RetrainTerms(cool_down=every),
        "never": RetrainTerms(on_harm=False),
        "each month": RetrainTerms(on_harm=False, every=month, **free),
        "each quarter": RetrainTerms(on_harm=False, every=month * 3, **free),
        "each half-year": RetrainTerms(on_harm=False, every=month * 6, **free),
        "at every alarm": RetrainTerms(on_drift=True, **free),
        "each window": RetrainTerms(on_harm=False, every=every, **free),
    }
    print(f"{name}: {count} windows of {rows} rows")
    for one in backtest(history, trees, policies, ReplayTerms(start=START, every=every, **terms), drifts=drifted):
        print(
            f"   {one.policy:<16} Brier {one.loss:.4f}, {len(one.trainings)} trainings, {one.alarms} alarms, {one.waits} waits of {one.looks} looks"
        )


def main():
    data = Path(sys.argv[1]) / "drift"
    elec = pl.read_csv(data / "elec.csv.gz")
    week = timedelta(days=7)
    for memory in (8, 16, None):
        shown(
            f"Elec2, memory {memory}",
            elec.drop("class").to_numpy(),
            elec["class"].to_numpy().astype(float),
            336,
            week,
            first=8,
            memory=memory,
            refit_memory=8,
            harm=HarmTerms(block=48),
        )
    sea = pl.read_parquet(data / "losing_SEA_4concepts.parquet")
    for memory in (4, 8, None):
        shown(
            f"SEA, memory {memory}",
            sea.select("x0", "x1", "x2").to_numpy(),
            sea["y"].to_numpy().astype(float),
            500,
            week,
            first=8,
            memory=memory,
            refit_memory=4,
            harm=HarmTerms(),
        )


main()

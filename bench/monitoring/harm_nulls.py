"""False harm where nothing changes: runs of 30 daily windows with labels, default terms.

    harm_nulls.py KIND RUNS [--first SEED] [--kept FILE] [--processes 2]

500 rows a day; the truth follows three inputs by a logistic rule, and the served model is a logistic fit of the 60 days
before, which are the reference. Each run is watched with a refit (of the five days before, each day) and without. KIND:

    rows    independent rows
    days    each day moves the log-odds of its rows by a normal shock of 0.3; rows of a day are one cluster
    slow    as `days`, but a day's shock is correlated with the one before by 0.5
    apart   as `days`, but nothing says that rows of a day belong together
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process a core

import numpy as np
from scipy.stats import beta

DAY, ROWS, BEFORE, DAYS, MEMORY = timedelta(days=1), 500, 60, 30, 5
SHOCK, SLOW, RULE = 0.3, 0.5, np.array([-1.0, 1.2, -0.7, 0.4])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logistic(inputs, truths):
    """Maximum likelihood by Newton's method, with a ridge of one row."""
    x, y, weight = np.concatenate(inputs), np.concatenate(truths), np.zeros(len(RULE))
    for _ in range(8):
        p = sigmoid(x @ weight)
        slope = x.T @ (y - p) - weight
        weight = weight + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.eye(len(weight)), slope)
    return lambda window: sigmoid(window @ weight)


def run(job):
    """The questions that were answered `worse` at any window of one run, with a refit and without."""
    from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline
    from cumulant.monitoring.performance.loss_monitor import add_window, begin_monitor
    from cumulant.monitoring.performance.refits import recent_refits
    from cumulant.monitoring.performance.rows import PredictionRows, windows

    seed, kind = job
    generator = np.random.default_rng(seed)
    shock = np.zeros(BEFORE + DAYS) if kind == "rows" else generator.normal(0, 1, BEFORE + DAYS)
    if kind == "slow":
        for day in range(1, len(shock)):
            shock[day] = SLOW * shock[day - 1] + np.sqrt(1 - SLOW**2) * shock[day]
    n = len(shock) * ROWS
    day = np.repeat(np.arange(len(shock)), ROWS)
    x = np.column_stack([np.ones(n), generator.normal(0, 1, (n, len(RULE) - 1))])
    truth = (generator.random(n) < sigmoid(x @ RULE + SHOCK * shock[day])).astype(float)
    inputs, truths = np.split(x, len(shock)), np.split(truth, len(shock))
    served = logistic(inputs[:BEFORE], truths[:BEFORE])
    refits = recent_refits(inputs, truths, logistic, memory=MEMORY)[BEFORE:]
    times = np.datetime64("2020-01-01", "us") + (np.arange(n) * (86_400_000_000 // ROWS)).astype("timedelta64[us]")
    cluster = day if kind in ("days", "slow") else None
    rows = PredictionRows(time=times, score=served(x), truth=truth, cluster=cluster)
    reference, current = rows.where(day < BEFORE), rows.where(day >= BEFORE)
    told = {"kind": kind, "seed": seed}
    for name, scores in {"refit": refits, "alone": [None] * DAYS}.items():
        terms = HarmPolicy(refit=name == "refit")
        watch, worse = begin_monitor(learn_baseline(reference, task="binary", policy=terms, every=DAY), terms), set()
        for (window, part), score in zip(windows(current, DAY), scores, strict=True):
            watch, found = add_window(watch, window, part, score)
            worse |= {one.question for one in found.findings if one.word == "worse"}
        told[name] = sorted(worse)
    return told


def reported(kind, found, took):
    for name, said in {"refit": "with a refit", "alone": "without"}.items():
        own = [one[name] for one in found]
        alarms, runs = sum(map(bool, own)), len(own)
        low = float(beta.ppf(0.025, alarms, runs - alarms + 1)) if alarms else 0.0
        high = float(beta.ppf(0.975, alarms + 1, runs - alarms)) if alarms < runs else 1.0
        what = [question for one in own for question in one]
        print(
            f"{kind} {said}: {alarms} of {runs} runs with harm, {alarms / runs:.2%} ({low:.2%} to {high:.2%}), "
            f"{ {one: what.count(one) for one in sorted(set(what))} }, {took:.0f} s"
        )


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("kind", choices=["rows", "days", "slow", "apart"])
    asked.add_argument("runs", type=int)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--kept", type=Path)
    asked.add_argument("--processes", type=int, default=2)
    told = asked.parse_args()
    kept = told.kept.read_text().splitlines() if told.kept and told.kept.exists() else []
    seeds = range(told.first, told.first + told.runs)
    found = [one for one in map(json.loads, kept) if one["kind"] == told.kind and one["seed"] in seeds]
    left = sorted(set(seeds) - {one["seed"] for one in found})
    began = time.perf_counter()
    with ProcessPoolExecutor(told.processes) as pool:
        jobs = [pool.submit(run, (seed, told.kind)) for seed in left]
        for job in as_completed(jobs):
            found.append(job.result())
            if told.kept:
                with told.kept.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    reported(told.kind, found, time.perf_counter() - began)

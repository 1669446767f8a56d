"""Worlds in which monitoring was fooled, on the shipped path: how often each is alarming, with an exact interval.

    worlds.py [WORLD ...] [--runs 40] [--first SEED]

Tables go through `cumulant.flows.monitoring.monitor.monitor`, losses through `cumulant.monitoring.performance.loss_monitor.add_window`, counts of
columns through `profiling.profile` and `comparing.compare`; all with the default settings. A null world (`quiet`) should be
alarming in at most 5% of its runs, any other one (`found`) in nearly all. Intervals are those of Clopper and Pearson.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl
from scipy.stats import beta

DAY = timedelta(days=1)
START = datetime(2026, 1, 1)
WORLDS = {}


def world(expect):
    """Registers a function of a seed that says whether anything was alarming."""

    def register(function):
        WORLDS[function.__name__] = (expect, function)
        return function

    return register


# --- tables, as `cumulant monitor run` compares them


def table(generator, days, start, size=200):
    n = days * size
    score = generator.beta(0.7, 0.7, n)
    at = [START + timedelta(days=start + row // size, seconds=row % size) for row in range(n)]
    return pl.DataFrame(
        {
            "key": np.arange(n) + start * size,
            "at": at,
            "amount": generator.normal(0, 1, n),
            "place": generator.choice(["x", "y", "z"], n, p=[0.6, 0.3, 0.1]),
            "score": score,
            "paid": generator.random(n) < score,
        }
    )


def run(before, now, labels=None, **more):
    from cumulant.core.errors import DataError
    from cumulant.flows.monitoring.drift.sides import MonitorRequest
    from cumulant.flows.monitoring.monitor import monitor
    from cumulant.monitoring.policy import DriftPolicy

    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, frame in (("before", before), ("now", now), ("labels", labels)):
            if frame is not None:
                paths[name] = Path(folder) / f"{name}.parquet"
                frame.write_parquet(paths[name])
        asked = MonitorRequest(
            predictions=paths["now"],
            reference=paths["before"],
            labels=paths.get("labels"),
            label="paid",
            key=("key",) if labels is not None else (),
            **more,
        )
        try:
            return monitor(asked, DriftPolicy()).alarming
        except DataError:
            return True


def sides(seed):
    generator = np.random.default_rng(seed)
    return generator, table(generator, 30, 0), table(generator, 15, 30)


@world("found")
def column_lost(seed):
    _, before, now = sides(seed)
    return run(before, now.drop("amount", "paid"))


@world("found")
def prediction_lost(seed):
    _, before, now = sides(seed)
    return run(before, now.drop("score", "paid"))


@world("found")
def column_of_another_type(seed):
    _, before, now = sides(seed)
    return run(before, now.with_columns(amount=pl.col("amount") > 0).drop("paid"))


@world("found")
def nothing_in_common(seed):
    _, before, now = sides(seed)
    return run(before, now.select("at").with_columns(other=1.0))


@world("quiet")
def labels_all(seed):
    _, before, now = sides(seed)
    return run(before, now.drop("paid"), now.select("key", "paid"))


@world("quiet")
def labels_contradict(seed):
    """Of a fifth of the rows a second line says the other class."""
    generator, before, now = sides(seed)
    known = now.select("key", "paid")
    again = known.filter(pl.Series(generator.random(now.height) < 0.2)).with_columns(paid=pl.lit(value=True))
    return run(before, now.drop("paid"), pl.concat([known, again]))


@world("quiet")
def labels_of_high_scores(seed):
    _, before, now = sides(seed)
    return run(before, now.drop("paid"), now.filter(pl.col("score") > 0.6).select("key", "paid"))


@world("found")
def labels_of_no_row(seed):
    _, before, now = sides(seed)
    return run(before, now.drop("paid"), now.select(pl.col("key") + 10_000_000, "paid"))


@world("found")
def labels_show_harm(seed):
    generator, before, now = sides(seed)
    wrong = pl.Series(generator.random(now.height) < 0.4)
    return run(before, now.drop("paid"), now.select("key", paid=pl.col("paid") ^ wrong), columns=("score",))


# --- columns


def compared(before, now, blocks, days):
    from cumulant.monitoring.drift.blocks import by_rows
    from cumulant.monitoring.drift.comparing import compare
    from cumulant.monitoring.drift.profiling import profile

    roles = dict.fromkeys(before.columns, "feature")
    reference = profile(before, roles, cut=by_rows(before.height, before.height // blocks), workers=1)
    cut = by_rows(now.height, now.height // days)
    current = profile(now, {}, cut=cut, like=reference, workers=1)
    return compare(reference, current, looks=30)


def categories(seed, values, power, rows, blocks, cluster=1):
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, values + 1) ** power
    before, now = (
        np.repeat(generator.choice(values, n // cluster, p=shares / shares.sum()), cluster) for n in (rows, 30_000)
    )
    frames = [pl.DataFrame({"c": pl.Series(codes).cast(pl.String)}) for codes in (before, now)]
    return any(compared(*frames, blocks, 30).alarming)


@world("quiet")
def flat_5000_values(seed):
    return categories(seed, 5000, 0.0, 20_000, 20)


@world("quiet")
def flat_250_values_of_few_rows(seed):
    return categories(seed, 250, 0.0, 1000, 1)


@world("quiet")
def zipf_5000_values(seed):
    return categories(seed, 5000, 1.0, 20_000, 20)


@world("quiet")
def values_that_come_in_runs(seed):
    return categories(seed, 5000, 0.0, 20_000, 20, cluster=5)


def trending(seed, trend, shift, again=0.0, before=120, days=30, size=200):
    generator = np.random.default_rng(seed)
    shock = generator.normal(size=before + days)
    for day in range(1, len(shock)):
        shock[day] = again * shock[day - 1] + np.sqrt(1 - again**2) * shock[day]
    level = np.r_[np.linspace(0, trend, before), np.full(days, trend + shift)] + 0.2 * shock
    rows = np.repeat(level, size)
    frame = pl.DataFrame({"x": rows + generator.normal(size=len(rows))})
    return compared(frame[: before * size], frame[before * size :], before, days)


@world("found")
def shift_after_a_trend(seed):
    return bool(trending(seed, 2.0, 1.5).active)


@world("quiet")
def trend_that_ended(seed):
    return any(trending(seed, 2.0, 0.0).alarming)


@world("quiet")
def steady_days_that_follow_each_other(seed):
    return any(trending(seed, 0.0, 0.0, again=0.5).alarming)


# --- numbers of rows


def numbered(seed, *, growth=0.0, dispersion=0.0, holiday=False, change=None, before=60, days=30):
    """Rows a day as negative binomial counts, half as many on weekends; all columns are as ever.

    `dispersion`: variance of a day's mean, relative to its square. `holiday`: a fifth of the rows on one day of the
    reference. `change` alters the rows of one of the inner watched days.
    """
    generator = np.random.default_rng(seed)
    day = np.arange(before + days)
    mean = 500 * np.array([1, 1.1, 1.05, 1, 1.2, 0.5, 0.4])[day % 7] * (1 + growth) ** day
    rows = generator.poisson(mean * (generator.gamma(1 / dispersion, dispersion, len(day)) if dispersion else 1))
    if holiday:
        rows[before // 2] //= 5
    if change is not None:
        place = before + int(generator.integers(1, days - 1))
        rows[place] = change(rows[place])
    at = np.datetime64(START, "us") + np.repeat(day, rows) * np.timedelta64(DAY)
    frame = pl.DataFrame({"at": at, "amount": generator.normal(size=len(at))})
    cut = int(rows[:before].sum())
    return run(frame[:cut], frame[cut:])


@world("quiet")
def rows_by_weekday_overdispersed(seed):
    return numbered(seed, dispersion=0.05)


@world("quiet")
def rows_very_overdispersed(seed):
    return numbered(seed, dispersion=0.3)


@world("quiet")
def rows_that_grow(seed):
    return numbered(seed, dispersion=0.02, growth=0.01)


@world("quiet")
def rows_with_a_holiday_in_the_reference(seed):
    return numbered(seed, dispersion=0.02, holiday=True)


@world("quiet")
def rows_of_a_short_reference(seed):
    return numbered(seed, dispersion=0.05, before=15)


@world("found")
def half_of_a_day_is_missing(seed):
    return numbered(seed, dispersion=0.005, change=lambda rows: rows // 2)


@world("found")
def a_day_comes_twice(seed):
    return numbered(seed, dispersion=0.005, change=lambda rows: 2 * rows)


@world("found")
def a_day_is_missing(seed):
    return numbered(seed, dispersion=0.05, change=lambda _: 0)


def beside(seed, change):
    """1,000 rows against 1,000, ten columns, of which the first is changed."""
    generator = np.random.default_rng(seed)
    before, now = (generator.normal(size=(1000, 10)) for _ in range(2))
    now[:, 0] = change(generator, now[:, 0])
    frames = [pl.DataFrame(one, schema=[f"n{place}" for place in range(10)], orient="row") for one in (before, now)]
    return any(compared(*frames, 1, 1).alarming)


@world("found")
def mean_moved_by_035(seed):
    return beside(seed, lambda _, values: values + 0.35)


@world("found")
def five_percent_moved_by_4(seed):
    return beside(seed, lambda generator, values: values + 4.0 * (generator.random(len(values)) < 0.05))


# --- losses


def daily(score, truth, rows, first=0, cluster=None):
    from cumulant.monitoring.performance.rows import PredictionRows

    step = 86_400_000_000 // rows
    day, place = np.divmod(np.arange(len(score)), rows)
    times = np.datetime64("2020-01-01", "us") + ((first + day) * 86_400_000_000 + place * step).astype(
        "timedelta64[us]"
    )
    return PredictionRows(time=times, score=score, truth=truth, cluster=cluster)


def watched(reference, current, terms, task, refits=None):
    from cumulant.monitoring.performance.baselines import learn_baseline
    from cumulant.monitoring.performance.loss_monitor import add_window, begin_monitor
    from cumulant.monitoring.performance.rows import windows

    watch = begin_monitor(learn_baseline(reference, task=task, policy=terms, every=DAY), terms)
    for number, (window, part) in enumerate(windows(current, DAY)):
        watch, found = add_window(watch, window, part, None if refits is None else refits[number])
        if found.word == "worse":
            return True
    return False


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def inflated(seed, shift):
    """Scores one logit too high, on the reference as well; then the truth moves by `shift`."""
    from cumulant.monitoring.performance.baselines import HarmPolicy

    generator, rows = np.random.default_rng(seed), 400
    x = generator.normal(0, 1.5, 60 * rows)
    moved = np.arange(len(x)) >= 30 * rows
    truth = (generator.random(len(x)) < sigmoid(x + shift * moved)).astype(float)
    score, cut = sigmoid(x + 1.0), 30 * rows
    refits = np.split(sigmoid(x + shift)[cut:], 30)
    return watched(
        daily(score[:cut], truth[:cut], rows),
        daily(score[cut:], truth[cut:], rows, first=30),
        HarmPolicy(),
        "binary",
        refits,
    )


@world("quiet")
def miscalibration_of_old(seed):
    return inflated(seed, 0.0)


@world("found")
def truth_that_moved_from_there(seed):
    return inflated(seed, -1.0)


def at_the_boundary(seed, kind, before=60, days=30, rows=40):
    """Each day loses `kind`; the mean of later days is exactly what may be lost without harm."""
    from cumulant.monitoring.performance.baselines import HarmPolicy, learn_baseline

    generator, day = np.random.default_rng(seed), np.arange((before + days) * rows) // rows
    z = kind(generator, before + days)
    truth, sign = np.tile([1.0, -1.0], len(day) // 2), np.tile([1.0, 1.0, -1.0, -1.0], len(day) // 4)
    terms = HarmPolicy(loss="squared_error", refit=False, calibration=False)

    def made(loss):
        return daily(truth + sign * np.sqrt(np.maximum(loss, 0.02)[day]), truth, rows, cluster=day)

    reference = made(0.4 + 0.04 * z).where(day < before)
    held = learn_baseline(reference, task="regression", policy=terms, every=DAY)
    due = (held.ratio + 2 * held.ratio_error) * rows / (rows - 1) + terms.margin * held.loss
    return watched(reference, made(due + 0.04 * z).where(day >= before), terms, "regression")


@world("quiet")
def independent_days(seed):
    return at_the_boundary(seed, lambda generator, n: generator.normal(size=n))


@world("quiet")
def days_that_follow_each_other_by_08(seed):
    def kind(generator, n):
        z = generator.normal(size=n)
        for day in range(1, n):
            z[day] = 0.8 * z[day - 1] + 0.6 * z[day]
        return z

    return at_the_boundary(seed, kind)


@world("quiet")
def days_of_which_few_lose_little(seed):
    """Skewness -2: most days lose a little more than their mean."""
    return at_the_boundary(seed, lambda generator, n: 1 - generator.standard_exponential(n))


@world("quiet")
def days_of_which_hardly_any_lose_little(seed):
    """Skewness -6.3: a few of the 60 days of the reference lose much less than the others."""
    return at_the_boundary(seed, lambda generator, n: (0.1 - generator.standard_gamma(0.1, n)) / np.sqrt(0.1))


# --- several classes without labels


def softened(seed, n, sharpness, sure):
    """Scores of three classes that are probabilities to the power of `sharpness`, and classes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, sure, (n, 3)) + np.log([0.5, 0.3, 0.2])
    chance, score = (np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (logits, sharpness * logits))
    return score, (generator.random(n)[:, None] > chance.cumsum(axis=1)[:, :2]).sum(axis=1)


@cache
def class_estimators(seed, sharpness):
    from cumulant.monitoring.performance.multiclass import learn_estimators

    score, truth = softened([seed, 0], 6000, sharpness, 1.5)
    return learn_estimators(daily(score, truth.astype(float), 500), names=("a", "b", "c"), every=DAY)


def _outside(seed, name, sharpness=1.0, sure=1.5):
    """Whether the truth of a window of 500 rows lies outside of its interval; None: nothing is estimated. 25 windows
    share a reference of 6,000 rows.
    """
    from cumulant.monitoring.performance.multiclass import estimate_class_windows

    score, truth = softened([seed, 1], 500, sharpness, sure)
    part = daily(score, truth.astype(float), 500, first=40)
    [window] = estimate_class_windows(class_estimators(seed // 25, sharpness), part, every=DAY)
    if window.refused is not None:
        return None
    right = score.argmax(axis=1) == truth
    true = -np.log(score[np.arange(500), truth]).mean() if name == "log_loss" else right.mean()
    return not window.figures[name].low <= true <= window.figures[name].high


@world("quiet")
def log_loss_of_calibrated_classes_outside(seed):
    return _outside(seed, "log_loss")


@world("quiet")
def accuracy_of_calibrated_classes_outside(seed):
    return _outside(seed, "accuracy")


@world("quiet")
def log_loss_of_classes_that_are_off_outside(seed):
    return _outside(seed, "log_loss", sharpness=0.5)


@world("found")
def calibration_that_does_not_carry_is_refused(seed):
    return _outside(seed, "log_loss", sharpness=0.5, sure=0.8) is None


def reported(name, runs, first):
    expect, alarms = WORLDS[name]
    began = time.perf_counter()
    count = sum(bool(alarms(seed)) for seed in range(first, first + runs))
    low = float(beta.ppf(0.025, count, runs - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, runs - count)) if count < runs else 1.0
    took = time.perf_counter() - began
    print(
        f"{name:40} {expect:6} {count:4} of {runs:4}  {count / runs:6.1%} ({low:.1%} to {high:.1%})  {took:.0f} s",
        flush=True,
    )


def main(names):
    """Run the worlds that are asked for on the command line, by default those of `names`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("worlds", nargs="*", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    for name in options.worlds or names:
        reported(name, options.runs, options.first)


if __name__ == "__main__":
    main(list(WORLDS))

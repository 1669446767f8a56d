"""More worlds of monitoring: labels late for one class, seasons and references of few rows, nulls, heavy keys, clocks.

    irregular.py [WORLD ...] [--runs 40] [--first SEED]

Tables go through `cumulant.flows.monitoring.monitor.monitor` with the default settings, as those of `worlds.py`: a null world
(`quiet`) should be alarming in at most 5% of its runs, any other one (`found`) in nearly all.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
from worlds import DAY, START, WORLDS, main, run, sigmoid, table, world

OTHERS = set(WORLDS)


def split(frame, day, before):
    """The rows of the first `before` days, and the others."""
    return frame.filter(pl.Series(day < before)), frame.filter(pl.Series(day >= before))


def at(day):
    return np.datetime64(START, "us") + day * np.timedelta64(DAY)


# --- labels of one class that come late


def scored(generator, first, days, *, moved=0.0, rows=200):
    """About a tenth of positives, which scores tell; `moved`: by how much the truth's log-odds are above."""
    day = np.repeat(np.arange(days), rows) + first
    z = generator.normal(-2.8, 1.5, len(day))
    truth = generator.random(len(day)) < sigmoid(z + moved)
    key = np.arange(len(day)) + first * rows
    return pl.DataFrame({"key": key, "at": at(day), "amount": z, "score": sigmoid(z), "paid": truth}), day - first


def late_positives(seed, delay, moved=0.0):
    """Negatives are known at once, positives after an exponential time with a mean of `delay` days."""
    generator = np.random.default_rng([9, seed])
    before, _ = scored(generator, 0, 30)
    now, day = scored(generator, 30, 30, moved=moved)
    known = day + generator.exponential(delay, len(day)) * now["paid"].to_numpy() < 30
    return run(before, now.drop("paid"), now.select("key", "paid").filter(pl.Series(known)))


@world("quiet")
def labels_of_positives_20_days_late(seed):
    return late_positives(seed, 20)


@world("quiet")
def labels_of_positives_3_days_late(seed):
    return late_positives(seed, 3)


@world("found")
def labels_of_positives_3_days_late_and_harm(seed):
    return late_positives(seed, 3, moved=2.0)


@world("quiet")
def labels_missing_at_random(seed):
    generator = np.random.default_rng([9, seed])
    (before, _), (now, _) = scored(generator, 0, 30), scored(generator, 30, 30)
    return run(before, now.drop("paid"), now.select("key", "paid").sample(fraction=0.88, seed=seed))


# --- few rows


def seasonal(seed, before, *, rows=30, shift=0.0, weekend=1.0, shock=0.0, days=35):
    """Weekends have other values; `shock`: deviation of a day's level."""
    generator = np.random.default_rng([10, seed])
    day = np.repeat(np.arange(before + days), rows)
    free, level = day % 7 >= 5, shock * generator.normal(size=before + days)[day] + shift * (day >= before)
    x = generator.normal(size=len(day)) + weekend * free + level
    place = np.where(generator.random(len(day)) < 0.3 + 0.3 * weekend * free, "home", "work")
    score = sigmoid(generator.normal(size=len(day)) - x)
    return run(*split(pl.DataFrame({"at": at(day), "x": x, "place": place, "score": score}), day, before))


@world("quiet")
def weekly_season_of_30_rows_a_day(seed):
    return seasonal(seed, 28)


@world("found")
def shift_in_a_weekly_season_of_30_rows_a_day(seed):
    return seasonal(seed, 28, shift=1.0)


@world("quiet")
def weekly_season_and_a_reference_of_10_days(seed):
    return seasonal(seed, 10)


@world("quiet")
def reference_of_5_days_with_shocks(seed):
    return seasonal(seed, 5, rows=200, weekend=0.0, shock=0.25)


@world("quiet")
def reference_of_3_days_with_shocks(seed):
    return seasonal(seed, 3, rows=200, weekend=0.0, shock=0.25)


def few(seed, *, nulls=0.0, far=0.0, days=30, rows=25):
    """Five columns of 25 rows a day, with 2% of nulls."""
    generator = np.random.default_rng([15, seed])
    day = np.repeat(np.arange(2 * days), rows)
    now, columns = day >= days, {"at": at(day)}
    for place in range(5):
        values = generator.normal(size=len(day)) + 4 * (now & (generator.random(len(day)) < far * (place == 0)))
        lost = generator.random(len(day)) < 0.02 + nulls * now * (place == 1)
        columns[f"x{place}"] = pl.select(pl.when(pl.Series(~lost)).then(pl.Series(values))).to_series()
    return run(*split(pl.DataFrame(columns), day, days))


@world("quiet")
def days_of_25_rows(seed):
    return few(seed)


@world("found")
def days_of_25_rows_with_a_fifth_more_nulls(seed):
    return few(seed, nulls=0.2)


# --- nulls, scores, keys, clocks


def with_nulls(seed, drift=0.0, before=60, days=60, rows=300):
    """Log-odds of a null vary by 0.3 from day to day; their share rises by `drift` over the watched days."""
    generator = np.random.default_rng([11, seed])
    day = np.repeat(np.arange(before + days), rows)
    share = sigmoid(np.log(0.05 / 0.95) + 0.3 * generator.normal(size=before + days)[day])
    lost = generator.random(len(day)) < share + drift * np.clip(day - before, 0, None) / days
    x = pl.select(pl.when(pl.Series(~lost)).then(pl.Series(generator.normal(size=len(day))))).to_series()
    return run(*split(pl.DataFrame({"at": at(day), "x": x, "y": generator.normal(size=len(day))}), day, before))


@world("quiet")
def share_of_nulls_that_varies_by_day(seed):
    return with_nulls(seed)


@world("found")
def share_of_nulls_that_drifts_from_5_to_20_percent(seed):
    return with_nulls(seed, drift=0.15)


def beyond_one(seed, out, wrong=0.0):
    """Scores of nearly 0 and 1 lie `out` beyond; of `wrong` of the rows the label is the other one."""
    generator = np.random.default_rng([12, seed])
    before, now = table(generator, 30, 0), table(generator, 30, 30)
    now = now.with_columns(paid=pl.col("paid") ^ pl.Series(generator.random(now.height) < wrong))
    score = pl.col("score")
    edges = [pl.when(score > 0.98).then(1 + e).when(score < 0.02).then(-e).otherwise(score) for e in (0.0, out)]
    before, now = before.with_columns(edges[0].alias("score")), now.with_columns(edges[1].alias("score"))
    return run(before, now.drop("paid"), now.select("key", "paid"), columns=("score",))


@world("quiet")
def scores_rounded_beyond_one(seed):
    return beyond_one(seed, 1e-7)


@world("found")
def scores_rounded_beyond_one_and_harm(seed):
    return beyond_one(seed, 1e-7, wrong=0.3)


@world("found")
def scores_a_fifth_beyond_one(seed):
    return beyond_one(seed, 0.2)


def with_heavy_key(seed, share, *, leaves=False, before=60, days=30, rows=300):
    """One customer, of other values, has a fifth of the rows of the days on which it comes, a `share` of all."""
    generator = np.random.default_rng([13, seed])
    there = np.arange(before + days) < before if leaves else generator.random(before + days) < share
    day = np.repeat(np.arange(before + days), rows + there * (rows // 4))
    heavy = np.concatenate([np.arange(count) >= rows for count in np.bincount(day)])
    key = np.where(heavy, 999, generator.integers(0, 400, len(day))).astype(str)
    x = np.where(heavy, generator.normal(2, 0.3, len(day)), generator.normal(size=len(day)))
    return run(*split(pl.DataFrame({"at": at(day), "customer": key, "x": x}), day, before))


@world("quiet")
def heavy_key_on_half_of_the_days(seed):
    return with_heavy_key(seed, 0.5)


@world("quiet")
def heavy_key_on_one_day_of_ten(seed):
    return with_heavy_key(seed, 0.1)


@world("found")
def heavy_key_that_leaves(seed):
    return with_heavy_key(seed, 1.0, leaves=True)


@world("quiet")
def clocks_of_2_percent_a_year_ahead(seed):
    generator = np.random.default_rng([14, seed])
    before, now = table(generator, 30, 0), table(generator, 30, 30)
    ahead = pl.Series(generator.random(now.height) < 0.02)
    now = now.with_columns(at=pl.when(ahead).then(pl.col("at") + timedelta(days=400)).otherwise("at"))
    return run(before.drop("paid"), now.drop("paid"), columns=("amount", "place", "score"))


if __name__ == "__main__":
    main([name for name in WORLDS if name not in OTHERS])

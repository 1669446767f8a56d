"""False alarms where nothing changes: months looked at daily, 20 columns, default settings.

    nulls.py KIND ROWS MONTHS [--first SEED] [--kept FILE] [--processes 2]

12 numbers (normal, lognormal, Poisson, uniform; some with 5% missing) and 8 texts of 2 to 50 values. KIND:

    rows    independent rows, drawn one by one; the reference is a day
    counts  the same, but the counts of the cells are drawn and no rows: exact for all that is compared (`counted`)
    days    each day has one shock, which moves all numbers and the mixes of all texts; the reference are 60 days
    own     each day has a shock for each column
    slow    as `days`, but a day's shock is correlated with the one before by 0.5

With --kept each month is a line of FILE as soon as it is known, and months that are in it are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # a process a core

import numpy as np
import polars as pl
from scipy.stats import beta, lognorm, norm, poisson, uniform

DAYS, BEFORE, NUMBERS, TEXTS = 30, 60, 12, 8
CARDINALITY = (2, 3, 5, 8, 12, 20, 30, 50)
MISSING, SHOCK, SLOW = 0.05, 0.25, 0.5
CONTINUOUS = {0: norm(), 1: lognorm(1), 3: uniform()}
WHOLE = poisson(20)


def weights(place):
    """The shares of a text's values, the most frequent first."""
    found = 1 / np.arange(1, CARDINALITY[place % 8] + 1)
    return found / found.sum()


def missing(place):
    return MISSING if place % 5 == 4 else 0.0


def shocks(generator, days, kind):
    """The shock of each day and column [days, columns], in deviations of a normal column."""
    columns = NUMBERS + TEXTS
    if kind == "rows":
        return np.zeros((days, columns))
    if kind == "own":
        return generator.normal(0, SHOCK, (days, columns))
    found = generator.normal(0, 1, days)
    if kind == "slow":
        for day in range(1, days):
            found[day] = SLOW * found[day - 1] + np.sqrt(1 - SLOW**2) * found[day]
    return np.repeat(SHOCK * found[:, None], columns, axis=1)


def table(generator, shock, rows):
    """`rows` a day, of days with these shocks [days, columns]."""
    n = len(shock) * rows
    found = {}
    for place in range(NUMBERS):
        own = np.repeat(shock[:, place], rows)
        draws = (
            lambda own: generator.normal(0, 1, n) + own,
            lambda own: np.exp(generator.normal(0, 1, n) + own),
            lambda own: generator.poisson(20 * np.exp(own / 4), n).astype(float),
            lambda own: generator.uniform(0, 1, n) + own / 4,
        )
        values = draws[place % 4](own)
        if missing(place):
            values[generator.random(n) < missing(place)] = np.nan
        found[f"n{place}"] = values
    for place in range(TEXTS):
        own = np.repeat(shock[:, NUMBERS + place], rows)
        shares = weights(place)
        codes = np.searchsorted(np.cumsum(shares), np.clip(generator.random(n) + own / 10, 0, 1 - 1e-9))
        codes = np.minimum(codes, len(shares) - 1).astype(np.uint32)
        found[f"c{place}"] = pl.Series(codes).cat.to(pl.Enum([f"k{code:02}" for code in range(len(shares))]))
    return pl.DataFrame(found)


def counted(generator, rows, days=DAYS):
    """Profiles of a reference day and of `days` more, of `rows` independent rows each, without rows.

    Nothing but counts is compared, and those of independent rows are multinomial. The cells are made from the
    reference's percentiles: of a continuous column the spacings of uniform order statistics have a Dirichlet
    distribution, and between two of them lie as many rows as their ranks say (David and Nagaraja 2003, 2.5).
    """
    from cumulant.monitoring.drift.profiles import DriftProfile, ProfileBlock

    made = [_number(generator, place, rows, days) for place in range(NUMBERS)]
    made += [_text(generator, place, rows, days) for place in range(TEXTS)]
    before, now = zip(*made, strict=True)
    return (
        DriftProfile(blocks=(ProfileBlock(0, rows),), columns=before),
        DriftProfile(blocks=tuple(ProfileBlock(day * rows, rows) for day in range(days)), columns=now),
    )


def _column(name, cells, counts, lacking):
    from cumulant.monitoring.drift.profiles import ColumnCounts

    counts, none = tuple(map(tuple, counts.tolist())), (0,) * len(lacking)
    return ColumnCounts(name=name, cells=cells, counts=counts, missing=tuple(map(int, lacking)), unreadable=none)


def _number(generator, place, rows, days):
    from cumulant.monitoring.drift.profiles import ColumnCells
    from cumulant.statistics.drift.bins import FINE, cells, grid

    lacking = generator.binomial(rows, missing(place), days + 1)
    given = rows - lacking
    if place % 4 == 2:  # whole numbers: each is an atom
        atoms = np.arange(120)
        drawn = generator.multinomial(given, WHOLE.pmf(atoms))
        ordered = np.repeat(atoms, drawn[0]).astype(float)
        made, spread = grid(ordered), float(ordered.std())
        before = cells(ordered, made)
        group = np.searchsorted(made.edges, atoms)
        now = np.stack([np.bincount(group, day, minlength=len(made.edges) + 1) for day in drawn[1:]]).astype(int)
    else:
        law, n = CONTINUOUS[place % 4], int(given[0])
        ranks = np.concatenate(([1], (np.arange(1, FINE) * n) // FINE + 1, [n]))
        parts = np.diff(np.concatenate(([0], ranks, [n + 1])))
        held = parts > 0  # a percentile may be the least value itself
        shares = np.zeros(len(parts))
        shares[held] = generator.dirichlet(parts[held])
        points = law.ppf(np.cumsum(shares)[:-1])
        made, spread = grid(points[[0, -1]], declared=points[1:-1]), law.std()
        edges = np.unique(ranks)
        before = np.concatenate(([0, 0], np.diff(np.concatenate(([0], edges[1:]))), [0, 0]))[None]
        chances = np.diff(np.concatenate(([0.0], law.cdf(made.edges), [1.0])))
        now = generator.multinomial(given[1:], chances)
    kept = ColumnCells(kind="number", edges=tuple(made.edges.tolist()), spread=spread)
    return _column(f"n{place}", kept, before, lacking[:1]), _column(f"n{place}", kept, now, lacking[1:])


def _text(generator, place, rows, days):
    from cumulant.monitoring.drift.profiles import ColumnCells

    drawn = generator.multinomial(rows, weights(place), days + 1)
    order = np.argsort(-drawn[0], kind="stable")
    order = order[drawn[0][order] > 0]
    unseen = rows - drawn[:, order].sum(axis=1)
    counts = np.column_stack([drawn[:, order], np.zeros(days + 1, dtype=int), unseen])
    kept = ColumnCells(kind="category", values=tuple(f"k{code:02}" for code in order), once=int((drawn[0] == 1).sum()))
    none = np.zeros(days + 1)
    return _column(f"c{place}", kept, counts[:1], none[:1]), _column(f"c{place}", kept, counts[1:], none[1:])


def month(job):
    """What alarmed in a month without change, as it is decided and, where days differ, as if rows were independent."""
    from cumulant.monitoring.drift.blocks import by_rows
    from cumulant.monitoring.drift.comparing import compare
    from cumulant.monitoring.drift.profiling import profile

    seed, rows, kind = job
    generator = np.random.default_rng(seed)
    told = {"kind": kind, "rows": rows, "seed": seed}
    if kind == "counts":
        pairs = {"decided": counted(generator, rows)}
    else:
        days = 1 if kind == "rows" else BEFORE
        shock = shocks(generator, days + DAYS, kind)
        before, now = table(generator, shock[:days], rows), table(generator, shock[days:], rows)
        columns, pairs = dict.fromkeys(before.columns, "feature"), {}
        for name, size in {"decided": rows, "independent": len(before)}.items():
            if name == "independent" and (kind == "rows" or seed >= 20):
                continue
            reference = profile(before, columns, cut=by_rows(len(before), size), workers=1)
            pairs[name] = (
                reference,
                profile(now, columns, cut=by_rows(len(now), rows), like=reference, workers=1),
            )
    for name, (reference, current) in pairs.items():
        found = compare(reference, current, looks=DAYS)
        told[name] = sorted((one.what, one.feature, one.span) for one in found.findings)
    return told


def reported(kind, rows, found, took):
    for name in ("decided", "independent"):
        own = [one[name] for one in found if name in one]
        if not own:
            continue
        alarms, runs = sum(map(bool, own)), len(own)
        low = float(beta.ppf(0.025, alarms, runs - alarms + 1)) if alarms else 0.0
        high = float(beta.ppf(0.975, alarms + 1, runs - alarms)) if alarms < runs else 1.0
        print(
            f"{kind} n={rows} {name}: {alarms} of {runs} months with any alarm, {alarms / runs:.2%} ({low:.2%} to {high:.2%}), {took:.0f} s"
        )
        what = [f"{one[0]} {one[1][0]} {one[2]}" for month in own for one in month]
        print("  findings by what, kind of column and span:", {one: what.count(one) for one in sorted(set(what))})


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("kind", choices=["rows", "counts", "days", "own", "slow"])
    asked.add_argument("rows", type=int)
    asked.add_argument("months", type=int)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--kept", type=Path)
    asked.add_argument("--processes", type=int, default=2)
    told = asked.parse_args()
    kept = told.kept.read_text().splitlines() if told.kept and told.kept.exists() else []
    seeds = range(told.first, told.first + told.months)
    found = [
        one
        for one in map(json.loads, kept)
        if (one["kind"], one["rows"]) == (told.kind, told.rows) and one["seed"] in seeds
    ]
    left = sorted(set(seeds) - {one["seed"] for one in found})
    began = time.perf_counter()
    with ProcessPoolExecutor(told.processes) as pool:
        jobs = [pool.submit(month, (seed, told.rows, told.kind)) for seed in left]
        for job in as_completed(jobs):
            found.append(job.result())
            if told.kept:
                with told.kept.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    reported(told.kind, told.rows, found, time.perf_counter() - began)

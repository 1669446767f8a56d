"""False alarms where nothing changes: `nulls.py RUNS ROWS [KIND] [FIRST]`, looked at daily for a month, 20 columns.

KIND: `rows` (independent), `days` (each day has its own mean and mix, as real days have; the reference are 60 days).
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import polars as pl
from scipy.stats import beta

DAYS, NUMBERS, TEXTS = 30, 12, 8
CARDINALITY = (2, 3, 5, 8, 12, 20, 30, 50)


def table(generator, days, rows, kind):
    """`days` of `rows` each, without change; numbers normal, lognormal, Poisson and uniform, some with 5% missing."""
    n = days * rows
    own = np.repeat(generator.normal(0, 0.25, days), rows) if kind == "days" else 0.0
    found = {}
    for place in range(NUMBERS):
        draws = (
            lambda: generator.normal(0, 1, n) + own,
            lambda: np.exp(generator.normal(0, 1, n) + own),
            lambda: generator.poisson(20 * np.exp(own / 4), n).astype(float),
            lambda: generator.uniform(0, 1, n) + own / 4,
        )
        values = draws[place % 4]()
        if place % 5 == 4:
            values[generator.random(n) < 0.05] = np.nan
        found[f"n{place}"] = values
    for place in range(TEXTS):
        count = CARDINALITY[place % 8]
        weights = 1 / np.arange(1, count + 1)
        cumulated = np.cumsum(weights / weights.sum())
        codes = np.searchsorted(cumulated, np.clip(generator.random(n) + own / 10, 0, 1 - 1e-9))
        found[f"c{place}"] = pl.Series(np.minimum(codes, count - 1)).cast(pl.String)
    return pl.DataFrame(found)


def run(job):
    """Whether any look alarmed in one month without change, as it is decided and as for independent rows."""
    from cumulant.monitoring import drift

    seed, rows, kind = job
    generator = np.random.default_rng(seed)
    before = table(generator, 60 if kind == "days" else 1, rows, kind)
    now = table(generator, DAYS, rows, kind)
    columns = dict.fromkeys(before.columns, "feature")
    told = []
    for blocks in (rows, len(before)) if kind == "days" else (rows,):
        reference = drift.profile(before, columns, cut=drift.by_rows(len(before), blocks), workers=1)
        current = drift.profile(now, columns, cut=drift.by_rows(len(now), rows), like=reference, workers=1)
        found = drift.compare(reference, current, looks=DAYS)
        told.append((any(found.alarming), sorted((one.what, one.feature) for one in found.findings)))
    return told


if __name__ == "__main__":
    runs, rows = int(sys.argv[1]), int(sys.argv[2])
    kind, first = (sys.argv[3] if len(sys.argv) > 3 else "rows"), int(sys.argv[4] if len(sys.argv) > 4 else 0)
    began = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(run, [(first + seed, rows, kind) for seed in range(runs)], chunksize=4))
    for place, name in enumerate(("as decided", "as if rows were independent")[: len(found[0])]):
        alarms = sum(one[place][0] for one in found)
        low = float(beta.ppf(0.001, alarms, runs - alarms + 1)) if alarms else 0.0
        print(
            f"{kind} n={rows} {name}: {alarms} of {runs} months with any alarm ({alarms / runs:.1%}; 99.9% lower bound {low:.1%}), {time.perf_counter() - began:.0f} s"
        )
        what = [w for one in found for w in one[place][1]]
        print({w: what.count(w) for w in sorted(set(what))})

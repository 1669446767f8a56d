"""Features of a year to which days are added: processor time of all rows against that of what the days change.

    .venv/bin/python bench/features/added_day.py [1 3 10] [--days 1 7]

Millions of rows in a year, one Parquet file a day; one key a hundred rows, eight windows (`--lookup` adds the newest
rate of each card, without a limit, and a mean over results that come up to three days later). The files are validated
first, so that what is measured is the features alone: reading the snapshot, computing, writing the table. Each
measurement is a new process; memory is its high-water mark. Fails where the two tables differ in a bit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

PROJECT = """version: 1
model: {{name: year}}
data:
  tx: {{path: tx/*.parquet, key: [id], event_time: at, known_time: {{done: [result]}}}}
  rates: {{path: rates/*.parquet, key: [card, at], event_time: at}}
training: {{target: fraud, predict_at: at}}
resources: {{memory: {memory}}}
"""
FEATURES = """from cumulant.features import source
card = source("tx").by("card")
n, mean = card.count(window=["1d", "7d", "30d", "90d"]), card.mean("amount", window=["1d", "7d", "30d", "90d"])
"""
LOOKUP = """rate = source("rates").as_of("card").columns("rate")
late = card.mean("result", window=["7d", "30d"])
"""
START = datetime(2025, 1, 1, tzinfo=UTC)
YEAR, ROWS_A_KEY, DAY_US = 365, 100, 86_400_000_000


def deliver(folder: Path, day: int, rows: int) -> None:
    """The payments and rates of a day, in a year of `rows`."""
    rng = np.random.default_rng(day)
    cards, count = rows // ROWS_A_KEY, rows // YEAR
    base = int(START.timestamp() * 1e6) + day * DAY_US
    at = np.sort(rng.integers(0, DAY_US, count)) + base
    frame = pl.DataFrame(
        {
            "id": np.arange(count) + day * count,
            "card": rng.integers(0, cards, count),
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "amount": np.round(rng.lognormal(3, 1, count), 2),
            "done": pl.Series(at + rng.integers(0, 3 * DAY_US, count)).cast(pl.Datetime("us", "UTC")),
            "result": rng.normal(0, 1, count),
            "fraud": rng.random(count) < 0.02,
        }
    )
    frame.write_parquet(folder / f"tx/{START + timedelta(days=day):%Y-%m-%d}.parquet")
    some = rng.choice(cards, max(count // 50, 1), replace=False)
    rates = pl.DataFrame({"card": some, "rate": rng.random(len(some))}).with_columns(
        at=pl.lit(base + DAY_US // 2).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
    )
    rates.write_parquet(folder / f"rates/{START + timedelta(days=day):%Y-%m-%d}.parquet")


def measure(folder: Path, kind: str) -> dict[str, Any]:
    """One computation in this process: `all` rows, or what was added."""
    from cumulant.flows.data.validate import validate
    from cumulant.flows.features.feature_table import featurize, scans, store_features
    from cumulant.flows.features.task import resolve_task
    from cumulant.ports.access import Principal
    from cumulant.project.file.loading import load

    project, who = load(folder), Principal("bench")
    if kind == "validate":
        validate(project, principal=who)
        return {}
    snapshots = validate(project, principal=who).snapshots
    plan = resolve_task(project, snapshots).plan
    used = {name: snapshots[name].id for name in plan.sources}
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if kind == "all":
        table = store_features(project, "bench/all", plan, scans(project, snapshots, used, as_of=None))
        computed = table.rows
    else:
        found = featurize(project, principal=who)
        table, computed = found.table, found.computed
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall": time.perf_counter() - begun,
        "gib": _peak(),
        "rows": table.rows,
        "computed": computed,
        "key": table.key,
    }


def _peak() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 2**20 for line in status if line.startswith("VmHWM"))


def run(folder: Path, kind: str) -> dict[str, Any]:
    call = [sys.executable, __file__, "--measure", kind, str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def refuse_difference(folder: Path, key: str) -> None:
    """Compare the bits of both tables and remove that of all rows."""
    from cumulant.project.file.loading import load

    tables = load(folder).tables()
    mine, right = (tables.scan(one).collect() for one in (key, "bench/all"))
    for one, other in zip(mine, right, strict=True):
        same = one.name == other.name and one.dtype == other.dtype and bool((one.eq_missing(other)).all())
        if same and one.dtype == pl.Float64:
            same = bool((np.signbit(one.fill_null(0).to_numpy()) == np.signbit(other.fill_null(0).to_numpy())).all())
        if not same:
            raise SystemExit(f"{one.name} differs")
    tables.delete("bench/all")


def main(millions: list[float], days: list[int], memory: str, *, lookup: bool) -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; Polars {pl.__version__}\n")
    print("| rows of the year | days added | computed | rows computed | CPU s | wall s | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for million in millions:
        with tempfile.TemporaryDirectory() as name:
            folder, rows = Path(name), int(million * 1e6)
            for source in ("tx", "rates"):
                (folder / source).mkdir()
            (folder / "cumulant.yaml").write_text(PROJECT.format(memory=memory))
            (folder / "features.py").write_text(FEATURES + (LOOKUP if lookup else ""))
            for day in range(YEAR):
                deliver(folder, day, rows)
            run(folder, "validate")
            run(folder, "added")
            last = YEAR
            for count in days:
                for day in range(last, last + count):
                    deliver(folder, day, rows)
                last += count
                run(folder, "validate")
                found = {kind: run(folder, kind) for kind in ("all", "added")}
                for kind, one in found.items():
                    print(
                        f"| {rows:,} | {count} | {kind} | {one['computed']:,} of {one['rows']:,} | {one['cpu']:.2f} | "
                        f"{one['wall']:.2f} | {one['gib']:.2f} |",
                        flush=True,
                    )
                refuse_difference(folder, found["added"]["key"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("millions", nargs="*", type=float, default=[1, 3, 10])
    parser.add_argument("--days", nargs="+", type=int, default=[1, 7])
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--lookup", action="store_true")
    parser.add_argument("--measure", nargs=2)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(Path(asked.measure[1]), asked.measure[0])))
    else:
        main(asked.millions, asked.days, asked.memory, lookup=asked.lookup)

"""Features of many rows: processor time and peak memory against Polars' streaming engine, in the same run.

    .venv/bin/python bench/features/scale.py [1 3 10]

Millions of rows; one key a hundred rows, a year of times in microseconds, eight windows. Each measurement is a new
process that reads one Parquet file and writes one; memory is the process's high-water mark (VmHWM). `parts` is ours
within `--memory` (1GiB), which writes a table of the store. Prints a table and the exponent of processor time over rows, and fails where the answers
differ from Polars' by more than a relative 1e-9, or those of parts from those of the whole at all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

YEAR_US = 365 * 86_400_000_000
DAYS = (1, 7, 30, 90)
ROWS_A_KEY = 100
NAMES = [f"{kind}_{days}d" for days in DAYS for kind in ("n", "mean")]
ENGINES = ("ours", "parts", "polars")


def make(path: Path, rows: int) -> None:
    """Payments of `rows / 100` cards over a year, in the order of their times."""
    rng = np.random.default_rng(rows)
    at = np.sort(rng.integers(0, YEAR_US, rows)) + 1_700_000_000_000_000
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "card": rng.integers(0, rows // ROWS_A_KEY, rows),
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "amount": np.round(rng.lognormal(3, 1, rows), 2),
        }
    )
    frame.write_parquet(path, row_group_size=131_072)


def plan() -> Any:
    from cumulant.core.plan import Field, Source
    from cumulant.features.definition.definitions import source
    from cumulant.features.definition.loading import collect
    from cumulant.features.definition.plan import compile_plan

    fields = (Field("id", "int"), Field("card", "int"), Field("at", "time"), Field("amount", "float"))
    card = source("tx").by("card")
    spans = [f"{days}d" for days in DAYS]
    windows = {"n": card.count(window=spans), "mean": card.mean("amount", window=spans)}
    return compile_plan(collect(windows), {"tx": Source("tx", ("id",), "at", fields, {})}, entity="tx", predict_at=None)


def ours(path: Path, out: Path) -> None:
    from cumulant.features.offline.offline import compute

    compute(plan(), {"tx": pl.scan_parquet(path)}).write_parquet(out)


def parts(path: Path, out: Path) -> None:
    from cumulant.drivers.local.tables import FileTables
    from cumulant.features.offline.partitions import compute_within

    memory = int(os.environ["BENCH_MEMORY"])
    frames = {"tx": pl.scan_parquet(path)}
    computed = compute_within(plan(), frames, memory=memory, scratch=out.parent / "spill")
    FileTables(out.parent.as_uri()).write(out.stem, computed)  # as the folder `out`


def polars(path: Path, out: Path) -> None:
    frame = pl.scan_parquet(path).with_row_index("__row").sort("card", "at")
    columns = []
    for days in DAYS:
        count = pl.col("one").rolling_sum_by("at", f"{days}d", closed="right")
        mean = pl.col("amount").rolling_mean_by("at", f"{days}d", closed="right")
        columns += [count.over("card").alias(f"n_{days}d"), mean.over("card").alias(f"mean_{days}d")]
    found = frame.with_columns(one=pl.lit(1.0)).with_columns(columns).sort("__row").select("__row", *NAMES)
    found.sink_parquet(out, engine="streaming")


def measure(engine: str, path: Path, out: Path) -> dict[str, float]:
    start = time.perf_counter()
    {"ours": ours, "parts": parts, "polars": polars}[engine](path, out)
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) / 2**20 for line in status if line.startswith("VmHWM"))
    return {"cpu": used.ru_utime + used.ru_stime, "wall": time.perf_counter() - start, "gib": peak}


def run(engine: str, path: Path, out: Path) -> dict[str, float]:
    call = [sys.executable, __file__, "--measure", engine, str(path), str(out)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def worst(one: Path, other: Path) -> float:
    """The largest relative difference of a value; infinite where one side alone has it."""
    found = 0.0
    for name in NAMES:
        pair = pl.DataFrame({"a": _column(one, name), "b": _column(other, name)})
        if not pair.select((pl.col("a").is_null() == pl.col("b").is_null()).all()).item():
            return math.inf
        difference = ((pl.col("a") - pl.col("b")).abs() / pl.max_horizontal(pl.col("a").abs(), pl.lit(1e-300))).max()
        found = max(found, pair.select(difference).item() or 0.0)
    return found


def _column(path: Path, name: str) -> pl.Series:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return pl.scan_parquet(files, glob=False).select(pl.col(name).cast(pl.Float64)).collect()[name]


def main(millions: list[float], engines: list[str]) -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; Polars {pl.__version__}\n")
    print("| rows | engine | CPU s | wall s | peak GiB |\n|---|---|---|---|---|")
    seconds: dict[str, list[tuple[float, float]]] = {engine: [] for engine in engines}
    for million in millions:
        with tempfile.TemporaryDirectory() as name:
            folder, rows = Path(name), int(million * 1e6)
            make(folder / "tx.parquet", rows)
            for engine in engines:
                found = run(engine, folder / "tx.parquet", folder / f"{engine}.parquet")
                seconds[engine].append((rows, found["cpu"]))
                print(
                    f"| {rows:,} | {engine} | {found['cpu']:.1f} | {found['wall']:.1f} | {found['gib']:.2f} |",
                    flush=True,
                )
            for other in engines[1:]:
                difference = worst(folder / f"{engines[0]}.parquet", folder / f"{other}.parquet")
                if difference > (0.0 if other == "parts" else 1e-9):
                    raise SystemExit(f"the answers of {engines[0]} and {other} differ by {difference:.1e}")
    for engine, points in seconds.items():
        if len(points) > 1:
            (first, low), (last, high) = points[0], points[-1]
            print(f"\nexponent of {engine}: {math.log(high / low) / math.log(last / first):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("millions", nargs="*", type=float, default=[1, 3, 10])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--measure", nargs=3)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure[0], Path(asked.measure[1]), Path(asked.measure[2]))))
    else:
        from cumulant.core.units import size

        os.environ["BENCH_MEMORY"] = str(size(asked.memory))
        main(asked.millions, asked.engines)

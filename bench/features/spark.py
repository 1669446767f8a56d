"""Features of a history on Spark beside the embedded engine, start-up apart: seconds by the clock and of the processor.

    python bench/features/spark.py [--rows N] [--repeats N] [--cores N]

Needs `spark-connect` of tools/engines.sh on the PATH. Payments of cards and terminals, made from a seed; the windows of
both keys as in `examples/fraud`. Each engine computes the same plan from the same rows, in turn; the session of Spark
has computed a small history before. Spark's seconds of the processor are those of its server. Values are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.drivers.spark.engine import SparkEngine
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.offline import compute
from cumulant.features.spark.history import compute_history
from cumulant.testing.servers.spark import spark_server

BEGIN_US, DAYS = 1_700_000_000_000_000, 90


def payments(rows: int) -> pl.DataFrame:
    random = np.random.default_rng(7)
    at = np.sort(random.integers(0, DAYS * 86_400_000_000, rows)) + BEGIN_US
    return pl.DataFrame(
        {
            "id": np.arange(rows),
            "card": random.integers(0, max(rows // 200, 1), rows),
            "terminal": random.integers(0, max(rows // 100, 1), rows),
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "amount": random.gamma(2.0, 30.0, rows).round(2),
            "fraud": random.random(rows) < 0.01,
        }
    )


def plan() -> FeaturePlan:
    kinds: dict[str, Any] = {
        "id": "int",
        "card": "int",
        "terminal": "int",
        "at": "time",
        "amount": "float",
        "fraud": "bool",
    }
    fields = tuple(Field(name, kind) for name, kind in kinds.items())
    tx = source("tx")
    card, terminal, windows = tx.by("card"), tx.by("terminal"), ["1d", "7d", "30d"]
    features: dict[str, Any] = {
        "n": card.count(window=windows),
        "mean": card.mean("amount", window=windows),
        "seen": terminal.count(window=windows),
        "risk": terminal.mean("fraud", window=windows),
    }
    known = {"fraud": KnownAt(delay_us=7 * 86_400_000_000)}
    sources = {"tx": Source("tx", ("id",), "at", fields, known)}
    return compile_plan(collect(features), sources, entity="tx", predict_at=PredictAt("at"))


def server_seconds(folder: Path) -> float:
    """Seconds of the processor of the server that was started in a folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and str(folder) in (entry / "cmdline").read_text(errors="replace"):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    raise RuntimeError("the server is gone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    of, rows = plan(), payments(options.rows)
    settings = {"spark.sql.shuffle.partitions": str(options.cores)}
    seconds: dict[str, list[tuple[float, float]]] = {"embedded": [], "spark": []}
    with tempfile.TemporaryDirectory() as folder:
        place, staging = Path(folder) / "server", Path(folder) / "staging"
        place.mkdir()
        with spark_server(place, cores=options.cores, java=("-Xmx3g",), settings=settings) as port:
            engine = SparkEngine(f"sc://127.0.0.1:{port}?staging={staging}")
            list(compute_history(of, {"tx": payments(2_000)}, engine))
            for _ in range(options.repeats):
                begun, spent = time.perf_counter(), time.process_time()
                ours = compute(of, {"tx": rows})
                seconds["embedded"].append((time.perf_counter() - begun, time.process_time() - spent))
                begun, spent = time.perf_counter(), server_seconds(place)
                theirs = pl.concat(compute_history(of, {"tx": rows}, engine))
                seconds["spark"].append((time.perf_counter() - begun, server_seconds(place) - spent))
                for name in of.names:
                    difference = (ours[name].cast(pl.Float64) - theirs[name].cast(pl.Float64)).abs()
                    assert ours[name].null_count() == theirs[name].null_count(), name
                    assert (difference <= 1e-9 * ours[name].cast(pl.Float64).abs()).all(), name
    print(
        f"{options.rows:,} rows, {len(of.names)} features, load {os.getloadavg()[0]:.1f}; medians of {options.repeats}"
    )
    for name, runs in seconds.items():
        clock, processor = (statistics.median(values) for values in zip(*runs, strict=True))
        print(
            f"{name}: {clock:.2f} s, {processor:.2f} s of the processor, {options.rows / processor:,.0f} rows a core second"
        )


if __name__ == "__main__":
    main()

"""Features of a history on Spark beside the embedded engine, start-up apart: seconds by the clock and of the processor.

    python bench/features/spark.py [--rows N] [--repeats N] [--cores N]

Needs `spark-connect` of tools/engines.sh on the PATH. Payments of cards and terminals, made from a seed; the windows of
both keys as in `examples/fraud`. Each engine computes the same plan from the same rows, in turn; the session of Spark
has computed the history before, so that its workers run and its machine has compiled. Spark's seconds of the processor
are those of its server, of its Python workers and of this process, which hands over. Values are compared bit for bit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cumulant.core.plan import FeaturePlan, Field, KnownAt, PredictAt, Source
from cumulant.drivers.spark.engine import SparkEngine
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.distributed.history import compute_in
from cumulant.features.offline.offline import compute
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


def spent_seconds(folder: Path) -> float:
    """Seconds of the processor of this process, and of the server that was started in a folder with all below it."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    roots = set[int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                number = int(entry.name)
                parents[number], ticks[number] = int(fields[1]), sum(map(int, fields[11:15]))
                if str(folder) in (entry / "cmdline").read_text(errors="replace"):
                    roots.add(number)
    below = {
        number for number in parents if number in roots or any(above in roots for above in _above(number, parents))
    }
    own = time.process_time()
    return own + sum(ticks[number] for number in below) / os.sysconf("SC_CLK_TCK")


def _above(number: int, parents: dict[int, int]) -> Iterator[int]:
    while number := parents.get(number, 0):
        yield number


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
            begun, spent = time.perf_counter(), spent_seconds(place)
            with engine.session() as session:
                for count in (2_000, options.rows):
                    list(compute_in(session, of, {"tx": payments(count)}))
                started = time.perf_counter() - begun, spent_seconds(place) - spent
                for _ in range(options.repeats):
                    begun, spent = time.perf_counter(), time.process_time()
                    ours = compute(of, {"tx": rows})
                    seconds["embedded"].append((time.perf_counter() - begun, time.process_time() - spent))
                    begun, spent = time.perf_counter(), spent_seconds(place)
                    theirs = pl.concat(compute_in(session, of, {"tx": rows}))
                    seconds["spark"].append((time.perf_counter() - begun, spent_seconds(place) - spent))
                    assert theirs.equals(ours)
    print(
        f"{options.rows:,} rows, {len(of.names)} features, load {os.getloadavg()[0]:.1f}; medians of {options.repeats}"
    )
    for name, runs in seconds.items():
        clock, processor = (statistics.median(values) for values in zip(*runs, strict=True))
        print(
            f"{name}: {clock:.2f} s, {processor:.2f} s of the processor, {options.rows / processor:,.0f} rows a core second"
        )
    print(f"start and the first time: {started[0]:.1f} s, {started[1]:.1f} s of the processor")


if __name__ == "__main__":
    main()

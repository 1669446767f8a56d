"""A new day costs a day: looks at a prediction log of 60 days, whose profiles are kept, and at it with one day more.

    days.py [ROWS] [TURNS]    rows a day (default 20,000), with 12 numbers, 8 texts and a probability, against 200,000 rows

Each look is a process of its own, in this order: all rows at once as without a kept profile; the first look, which
keeps; the same look again; with one new day. Turns begin with nothing kept.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

DAYS, TURNS, FIRST = 60, 3, date(2026, 1, 1)
LOOKS = ("all at once", "first look", "again", "one new day")


def frame(rows, seed):
    import numpy as np
    import polars as pl

    generator = np.random.default_rng(seed)
    found = {f"n{place}": generator.normal(0, 1, rows).round(4) for place in range(12)}
    for place in range(8):
        count = (2, 3, 5, 8, 12, 20, 30, 50)[place]
        found[f"c{place}"] = pl.Series([f"k{code}" for code in generator.integers(0, count, rows)])
    return pl.DataFrame(found), generator.random(rows).round(4)


def write_day(log, place, rows):
    """One file of the log, as its process writes it."""
    import polars as pl
    import pyarrow.parquet as pq

    from cumulant.serving.prediction_log.storage.part_writer import SCHEMA

    asked, score = frame(rows, 100 + place)
    at = datetime.combine(FIRST + timedelta(days=place), datetime.min.time(), UTC)
    told = {
        "id": pl.Series([f"{place}-{row}" for row in range(rows)]),
        "row": 0,
        "time": at,
        "model": "m",
        "version": "1",
        "arm": "",
        "served_arm": "",
        "shadow": False,
        "fingerprint": "",
        "request": asked.select(pl.struct(pl.all()).struct.json_encode()).to_series(),
        "outputs": pl.DataFrame({"probability": score}).select(pl.struct(pl.all()).struct.json_encode()).to_series(),
        "latency_us": 0,
        "fallback": "",
        "worker": "w",
        "sequence": pl.Series(range(1, rows + 1)),
        "tenant": "",
        "region": "",
    }
    made = pl.select(**{name: pl.lit(value) for name, value in told.items()}).with_columns(
        event_time=pl.col("time") + pl.duration(seconds=pl.int_range(pl.len()) % 86_400)
    )
    folder = log / f"date={FIRST + timedelta(days=place)}"
    folder.mkdir(parents=True)
    rest = [pl.lit(None).alias(name) for name in SCHEMA.names if name not in made.columns]
    table = made.with_columns(rest).select(SCHEMA.names).to_arrow().cast(SCHEMA)
    pq.write_table(table, folder / "life-000001-000001.parquet", compression="zstd")


def once(look, folder):
    """One look, in this process."""
    from cumulant.flows.monitoring.drift.sides import MonitorRequest
    from cumulant.flows.monitoring.monitor import monitor
    from cumulant.monitoring.drift import comparing, profiling  # noqa: F401
    from cumulant.monitoring.policy import DriftPolicy

    asked = MonitorRequest(predictions=folder / "log", reference=folder / "reference.parquet")
    began, worked = time.perf_counter(), time.process_time()
    found = monitor(asked, DriftPolicy(), keep=None if look == LOOKS[0] else folder / "kept")
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
    with open("/proc/self/status") as file:
        peak = int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({**took, "peak_mb": peak, "rows": found.rows, "findings": len(found.drift.findings)}))


def measured(look, folder):
    command = [sys.executable, __file__, "--once", look, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    return json.loads(ended.stdout.splitlines()[-1])


def main(folder, rows, turns):
    import polars as pl

    for place in range(DAYS):
        write_day(folder / "log", place, rows)
    asked, score = frame(200_000, 1)
    days = pl.int_range(200_000) // 10_000
    asked.with_columns(
        pl.Series("answer.probability", score), at=pl.lit(datetime(2025, 11, 1, tzinfo=UTC)) + pl.duration(days=days)
    ).write_parquet(folder / "reference.parquet")
    found = {look: [] for look in LOOKS}
    for _ in range(turns):
        shutil.rmtree(folder / "kept", ignore_errors=True)
        shutil.rmtree(folder / "log" / f"date={FIRST + timedelta(days=DAYS)}", ignore_errors=True)
        for look in LOOKS:
            if look == LOOKS[-1]:
                write_day(folder / "log", DAYS, rows)
            found[look].append(measured(look, folder))
    for look, all_ in found.items():
        seconds, cpu = ([one[key] for one in all_] for key in ("seconds", "cpu"))
        print(
            f"{look}: {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}), processors "
            f"{statistics.median(cpu):.2f} s ({min(cpu):.2f}-{max(cpu):.2f}), peak "
            f"{max(one['peak_mb'] for one in all_):.0f} MB, {all_[0]['rows']:,} rows, {all_[0]['findings']} findings"
        )
    kept = sum(path.stat().st_size for path in (folder / "kept").rglob("*") if path.is_file())
    print(f"kept: {kept / 1e6:.1f} MB")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--once"]:
        once(arguments[1], Path(arguments[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary), *[*map(int, arguments), *(20_000, TURNS)[len(arguments) :]])

"""What a look of `monitor watch` costs: a log of 90 days, whose predictions and labels are taken in from files.

    watching.py [ROWS] [IDLE]    rows in all (default 1,000,000) and looks that see nothing new (default 3)

A yes-or-no model with 6 columns is trained on 50,000 rows of the 60 days before; its log and labels are imported, then
there is a first look, as of the end, and IDLE ones. Each command is a process of its own; seconds of the wall and of
the processors, and the most memory of the process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROWS, IDLE, DAYS, BEFORE, LEARNED = 1_000_000, 3, 90, 60, 50_000
START = datetime(2025, 6, 1, tzinfo=UTC)
END = START + timedelta(days=DAYS)
PROJECT = {
    "version": 1,
    "model": {"name": "shop", "owner": "shop@example.com", "purpose": "Find orders that come back"},
    "data": {
        "orders": {"path": "data/*.parquet", "key": "order", "event_time": "ordered", "known_time": {"3d": "returned"}}
    },
    "training": {"target": "returned", "trials": 1, "time": None, "trainers": ["linear"], "ensemble": 1},
}
FEATURES = """\
from cumulant.features import source

row = source("orders").columns("kind", "place", "amount", "items", "age", "express")
"""


def orders(rows: int, first: int, start: datetime, days: int, seed: int):
    import numpy as np
    import polars as pl

    draw = np.random.default_rng(seed)
    seconds = np.sort(draw.integers(0, days * 86_400, rows))
    kind, place = draw.integers(0, 8, rows), draw.integers(0, 60, rows)
    amount, items, age = (
        np.round(draw.gamma(2.0, 30.0, rows), 2),
        draw.integers(1, 9, rows),
        draw.integers(18, 90, rows),
    )
    express = draw.random(rows) < 0.3
    chance = 1 / (1 + np.exp(-(-2.0 + 0.3 * kind * express + 0.01 * amount - 0.2 * items + 0.01 * age)))
    return pl.DataFrame(
        {
            "order": np.arange(first, first + rows),
            "ordered": pl.Series(seconds * 1_000_000 + int(start.timestamp()) * 1_000_000).cast(
                pl.Datetime("us", "UTC")
            ),
            "kind": [f"k{one}" for one in kind],
            "place": [f"p{one}" for one in place],
            "amount": amount,
            "items": items,
            "age": age,
            "express": express,
            "returned": draw.random(rows) < chance,
        }
    )


def prepare(folder: Path, rows: int) -> None:
    """The project, its model and the files that are taken in."""
    import polars as pl

    from cumulant.flows.serving.predict import predict
    from cumulant.flows.training.train import train
    from cumulant.project.file.loading import load

    (folder / "data").mkdir(parents=True)
    (folder / "cumulant.yaml").write_text(json.dumps(PROJECT))
    (folder / "features.py").write_text(FEATURES)
    orders(LEARNED, 0, START - timedelta(days=BEFORE), BEFORE, 1).write_parquet(folder / "data" / "a.parquet")
    with load(folder) as project:
        train(project, principal=project.principal())
    served = orders(rows, LEARNED, START, DAYS, 2)
    served.write_parquet(folder / "data" / "b.parquet")
    with load(folder) as project:
        answers = predict(project, "shop", served.drop("returned"), principal=project.principal())
    served.drop("returned").with_columns(
        pl.format("r{}", "order").alias("id"),
        pl.col("ordered").alias("moment"),
        pl.lit("1").alias("version"),
        answers["prediction"],
        answers["probability"].alias("p"),
    ).write_parquet(folder / "sent.parquet")
    served.select(
        pl.format("r{}", "order").alias("id"), "returned", (pl.col("ordered") + timedelta(days=3)).alias("known_time")
    ).write_parquet(folder / "known.parquet")


def timed(name: str, folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> dict[str, object]:
    """One command, with what it took."""
    line = [sys.executable, __file__, "--once", *words, "--project", str(folder), "--json"]
    begun = time.perf_counter()
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if ended.returncode not in codes:
        sys.exit(ended.stdout[-2000:] + ended.stderr[-2000:])
    cpu, peak = ended.stderr.splitlines()[-1].split()
    print(f"{name}: {seconds:.1f} s, processors {float(cpu):.1f} s, peak {float(peak):,.0f} MB", flush=True)
    return json.loads(ended.stdout)


def once(words: list[str]) -> None:
    """The command in this process; the last line of the errors says seconds of the processors and megabytes."""
    from cumulant.cli import main

    sys.argv, code = ["cumulant", *words], 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    used = time.process_time()
    with open("/proc/self/status") as file:  # ru_maxrss is inherited from the process that began this one
        peak = int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
    sys.stdout.flush()
    sys.stderr.write(f"\n{used} {peak}\n")
    raise SystemExit(code)


def main(folder: Path, rows: int, idle: int) -> None:
    if not (folder / "known.parquet").exists():
        shutil.rmtree(folder, ignore_errors=True)
        prepare(folder, rows)
        parts = "id=id,time=moment,event_time=moment,prediction=prediction,score=p,version=version"
        timed("import of the log", folder, "labels", "import-predictions", str(folder / "sent.parquet"), "--map", parts)
        timed("labels", folder, "labels", "ingest", str(folder / "known.parquet"))
    for number in range(idle + 1):
        name = "first look" if number == 0 else "idle look"
        look = ("monitor", "watch", "--once", "--no-retrain", "--at", END.isoformat())
        found = timed(name, folder, *look, codes=(0, 1))
        print(f"  {found['fresh']} windows judged, {sum(one['rows'] for one in found['windows']):,} rows in them")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--once"]:
        once(arguments[1:])
    elif arguments[:1] == ["--in"]:
        main(Path(arguments[1]), *[*map(int, arguments[2:]), *(ROWS, IDLE)[len(arguments[2:]) :]])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "shop", *[*map(int, arguments), *(ROWS, IDLE)[len(arguments) :]])

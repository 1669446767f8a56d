"""The most memory that commands take, by the rows that they read: each is a process of its own, at 1 and 3 million rows.

    memory.py [--in FOLDER] [--only NAME,NAME] [MILLIONS ...]    default: 1 3

The project and the rows are those of `watching.py`. A line a command: seconds of the wall, and the process's high-water
mark (VmHWM) in MB; at the end what each takes of memory for a million rows more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from watching import BEFORE, DAYS, END, FEATURES, LEARNED, PROJECT, START, orders


def prepare(folder: Path, rows: int) -> None:
    """A project with a model of 50,000 rows, the rows to come, their answers and what became of them."""
    import polars as pl

    from cumulant.flows.training.train import train
    from cumulant.project.file.loading import load

    (folder / "data").mkdir(parents=True)
    (folder / "cumulant.yaml").write_text(json.dumps(PROJECT))
    (folder / "features.py").write_text(FEATURES)
    learned = orders(LEARNED, 0, START - timedelta(days=BEFORE), BEFORE, 1)
    learned.write_parquet(folder / "data" / "a.parquet")
    learned.drop("returned").write_parquet(folder / "before.parquet")
    with load(folder) as project:
        train(project, principal=project.principal())
    served = orders(rows, LEARNED, START, DAYS, 2)
    served.drop("returned").write_parquet(folder / "rows.parquet", row_group_size=131_072)
    score = (pl.col("order").hash(7) % 10_000 / 10_000).alias("p")
    sent = served.drop("returned").with_columns(
        pl.format("r{}", "order").alias("id"), pl.col("ordered").alias("moment"), pl.lit("1").alias("version"), score
    )
    sent.with_columns((pl.col("p") > 0.5).alias("prediction")).write_parquet(folder / "sent.parquet")
    served.select(
        pl.format("r{}", "order").alias("id"), "returned", (pl.col("ordered") + timedelta(days=3)).alias("known_time")
    ).write_parquet(folder / "known.parquet")
    grown = folder / "grown"
    (grown / "data").mkdir(parents=True)
    for name in ("cumulant.yaml", "features.py"):
        (grown / name).write_text((folder / name).read_text())
    served.write_parquet(grown / "data" / "a.parquet", row_group_size=131_072)


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """In an order in which each finds what it needs."""
    parts = "id=id,time=moment,event_time=moment,prediction=prediction,score=p,version=version"
    here, rows = ("--project", str(folder)), str(folder / "rows.parquet")
    return {
        "predict": ("predict", rows, *here),
        "predict --json": ("predict", rows, "--json", *here),
        "predict --out": ("predict", rows, "--out", str(folder / "answers.parquet"), *here),
        "labels import-predictions": (
            "labels",
            "import-predictions",
            str(folder / "sent.parquet"),
            "--map",
            parts,
            *here,
        ),
        "labels ingest": ("labels", "ingest", str(folder / "known.parquet"), *here),
        "labels report": ("labels", "report", *here),
        "labels list": ("labels", "list", *here),
        "predictions list": ("predictions", "list", *here),
        "monitor run": ("monitor", "run", *here),
        "monitor run FILE": (
            "monitor",
            "run",
            "--predictions",
            rows,
            "--reference",
            str(folder / "before.parquet"),
            *here,
        ),
        "monitor watch": ("monitor", "watch", "--once", "--no-retrain", "--at", END.isoformat(), *here),
        "features get": ("features", "get", "--project", str(folder / "grown")),
        "train": ("train", "--project", str(folder / "grown")),
    }


def measured(name: str, words: tuple[str, ...]) -> float | None:
    """Megabytes at the peak of one command; None where it failed."""
    begun = time.perf_counter()
    line = [sys.executable, __file__, "--once", *words]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 1):
        print(f"{name}: exit {ended.returncode}\n{ended.stderr[-1500:]}", flush=True)
        return None
    peak = float(ended.stderr.splitlines()[-1])
    print(f"{name}: {time.perf_counter() - begun:.1f} s, peak {peak:,.0f} MB", flush=True)
    return peak


def once(words: list[str]) -> None:
    """The command in this process; the last line of the errors says megabytes."""
    from cumulant.cli import main as cumulant

    sys.argv, code = ["cumulant", *words], 0
    try:
        cumulant()
    except SystemExit as ended:
        code = int(ended.code or 0)
    with open("/proc/self/status") as file:  # ru_maxrss is inherited from the process that began this one
        peak = int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
    sys.stdout.flush()
    sys.stderr.write(f"\n{peak}\n")
    raise SystemExit(code)


def main(root: Path, millions: list[float], only: set[str]) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for million in millions:
        folder = root / f"{million:g}"
        if not (folder / "known.parquet").exists():
            prepare(folder, round(million * 1e6))
        print(f"{million:g} million rows", flush=True)
        for name, words in commands(folder).items():
            if (not only or name in only) and (peak := measured(name, words)) is not None:
                found.setdefault(name, []).append((million, peak))
    for name, points in found.items():
        if len(points) > 1:
            (few, low), (many, high) = points[0], points[-1]
            print(f"{name}: {(high - low) / (many - few):,.0f} MB for a million rows more")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        once(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in", dest="folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("millions", nargs="*", type=float, default=[1.0, 3.0])
    given = parser.parse_args()
    chosen = {name for name in given.only.split(",") if name}
    if given.folder is not None:
        main(given.folder, given.millions, chosen)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary), given.millions, chosen)

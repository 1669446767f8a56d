"""Sources of many small files: processor time, stored files and memory by the number of files, and of the k-th snapshot.

Run: `python bench/data/many_files.py [--files 500 1000 2000] [--kinds csv parquet] [--snapshots 300]`. Each line is
`validate` of a new project in a process of its own: the processor seconds of that process with its threads, its largest
resident memory, the files in its state, and the exponent of the time against the line before. `--snapshots K`: a
source that gets one new file a run, K times in one process, with the processor seconds of single runs.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from cumulant.flows.data.validate import validate
from cumulant.flows.maintenance.cleanup import clean
from cumulant.project.file.loading import load

ROWS = 20
PROJECT = """version: 1
model:
  name: files
data:
  trips:
    path: in
    key: id
    event_time: at
    rules:
      km: {min: 0, nulls: 5%}
      city: {in: [A, B, C]}
"""


def write(folder: Path, number: int, kind: str) -> None:
    rng = np.random.default_rng(number)
    frame = pl.DataFrame(
        {
            "id": np.arange(number * ROWS, (number + 1) * ROWS),
            "at": (1_700_000_000 + np.arange(ROWS) + number * 3600) * 1_000_000,
            "km": rng.normal(10, 2, ROWS).clip(0),
            "city": rng.choice(["A", "B", "C"], ROWS),
            "note": [f"trip {number} {row}" for row in range(ROWS)],
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    path = folder / "in" / f"{number:06}.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)


def project_in(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "cumulant.yaml").write_text(PROJECT)


def run(folder: Path) -> tuple[float, int]:
    """Processor seconds of one `validate`, and the rows that passed."""
    before = time.process_time()
    with load(folder) as project:
        snapshot = validate(project, principal=project.principal()).snapshots["trips"]
    return time.process_time() - before, snapshot.rows_passed


def single(folder: Path) -> None:
    """One `validate` in this process; prints what it took."""
    seconds, rows = run(folder)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "rows": rows, "memory": memory}))


def stored(folder: Path) -> tuple[int, int]:
    """How many files the state has, and their bytes."""
    files = [path for path in (folder / ".cumulant").rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def measure(kind: str, counts: list[int], again: bool) -> None:
    last: tuple[int, float] | None = None
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            project_in(folder)
            for number in range(count):
                write(folder, number, kind)
            for what in ["first", "unchanged", "one more"] if again else ["first"]:
                if what == "one more":
                    write(folder, count, kind)
                command = [sys.executable, __file__, "--single", name]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                exponent = ""
                if what == "first" and last is not None:
                    exponent = f", exponent {math.log(found['seconds'] / last[1]) / math.log(count / last[0]):.2f}"
                last = (count, found["seconds"]) if what == "first" else last
                files, size = stored(folder)
                print(
                    f"{kind:8} {count:6,} files, {what:9}: {found['seconds']:7.2f} s CPU, {found['memory']:6.0f} MiB, "
                    f"{files:7,} files in the state ({size / 2**20:.1f} MiB){exponent}",
                    flush=True,
                )


def snapshots(kind: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project_in(folder)
        took = []
        for number in range(count):
            write(folder, number, kind)
            took.append(run(folder)[0])
            if number + 1 in (2, 10, 50, 100, 200, 300, 500, 700, 1000):
                files, size = stored(folder)
                mean = sum(took[-10:]) / len(took[-10:])
                print(
                    f"{kind:8} snapshot {number + 1:5,}: {mean:6.3f} s CPU (mean of 10), {sum(took):7.1f} s in all, "
                    f"{files:6,} files ({size / 2**20:.1f} MiB)",
                    flush=True,
                )
        (folder / "cumulant.yaml").write_text(PROJECT.replace("path: in", "path: in\n    keep: 1s"))
        before = time.process_time()
        with load(folder) as project:
            removed = clean(project, principal=project.principal(), dry_run=False)
        print(
            f"{kind:8} clean after: {time.process_time() - before:.2f} s CPU, {len(removed):,} things removed, "
            f"{stored(folder)[0]:,} files left, {run(folder)[1]:,} rows"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=[500, 1000, 2000])
    parser.add_argument("--kinds", nargs="*", default=["csv", "parquet"])
    parser.add_argument("--snapshots", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="also: nothing changed, and one more file")
    parser.add_argument("--single", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        single(args.single)
        return
    for kind in args.kinds:
        measure(kind, args.files, args.again)
        if args.snapshots:
            snapshots(kind, args.snapshots)


if __name__ == "__main__":
    main()

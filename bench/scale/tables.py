"""Tables of millions of rows through validation, features and a training set: time, CPU and peak memory.

    python bench/scale/tables.py --rows 1000000 10000000 --memory 1GiB --out FOLDER
    python bench/scale/tables.py --rows 100000000 --memory 2GiB --out FOLDER  # 30 GB of disk, 20 min of CPU

Card payments, made again for every run from their number: parts of a million rows in the order of their times, one
card a hundred rows, a year of times. Each step is a process of its own that does what the command does; peak memory is
the high-water mark (VmHWM) of its whole life, CPU seconds are those of all its threads.

- validate: `cumulant data validate`, a first snapshot with a key, an event time and five rules
- features: the feature table, ten windows of two keys
- training set: the rows that a training reads, `training.rows` of them, with features and label
- online state: the events of the windows, in SQLite, as `cumulant features materialize` stores them
- a day more: another file (a three hundredth of the rows), then validate and features again

`--steps features "online state"` leaves the other steps out, but for the first snapshot; `training set` and `online
state` without `features` compute these too.

Prints a table and the exponents of CPU seconds over rows from the smallest to the largest; fails where an exponent is
above --exponent, or a peak above --memory times --slack. Linux only; everything is deleted again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cumulant.core.units import size

if TYPE_CHECKING:
    from cumulant.flows.features.feature_table import FeatureSet
    from cumulant.project.project import Project

PART = 1_000_000
YEAR_US, BEGIN_US = 365 * 86_400_000_000, 1_700_000_000_000_000
ROWS_A_CARD, ROWS_A_MERCHANT = 100, 5_000
STEPS = ("validate", "features", "training set", "online state", "validate a day more", "features of a day more")
PROJECT = """\
version: 1
model: {{name: payments}}
data:
  payments:
    path: "payments/*.parquet"
    key: id
    event_time: at
    rules:
      amount: {{min: 0, max: 1000000}}
      category: {{in: [food, fuel, travel, online, other]}}
      card: {{nulls: 0}}
      merchant: {{nulls: 0}}
      fraud: {{type: bool}}
training: {{target: fraud, rows: {rows}, trainers: [linear], trials: 1}}
evaluation: {{test: 20%}}
resources: {{memory: {memory}}}
"""
FEATURES = """\
from cumulant.features import source

payment = source("payments")
row = payment.columns("amount", "category")
card = payment.by("card")
count = card.count(window=["1h", "1d", "30d"])
mean = card.mean("amount", window=["1d", "7d", "30d"])
largest = card.max("amount", window=["30d"])
shop = payment.by("merchant")
sales = shop.count(window=["1h", "1d"])
turnover = shop.sum("amount", window=["1d"])
"""


def part(number: int, rows: int, of: int) -> pl.DataFrame:
    """Rows `number * PART` and later, at most `rows`, of a table of `of` rows; a row depends on its number and `of`."""
    draw = np.random.default_rng([of, number])
    place = number * PART + np.arange(rows)
    amount = np.round(draw.lognormal(3, 1, rows), 2)
    return pl.DataFrame(
        {
            "id": place,
            "card": draw.integers(0, max(of // ROWS_A_CARD, 1), rows),
            "merchant": draw.integers(0, max(of // ROWS_A_MERCHANT, 1), rows),
            "at": pl.Series(BEGIN_US + (place * (YEAR_US / of)).astype(np.int64)).cast(pl.Datetime("us", "UTC")),
            "amount": amount,
            "category": np.array(["food", "fuel", "travel", "online", "other"])[draw.integers(0, 5, rows)],
            "fraud": draw.random(rows) < 0.002 + 0.02 * (amount > 100),
        }
    )


def write(folder: Path, rows: int, first: int, of: int) -> None:
    """The files of `rows` rows from part `first` on."""
    (folder / "payments").mkdir(exist_ok=True)
    for number, begin in enumerate(range(0, rows, PART), first):
        frame = part(number, min(PART, rows - begin), of)
        frame.write_parquet(folder / "payments" / f"part-{number:04d}.parquet", row_group_size=131_072)


def work(folder: Path, step: str) -> dict[str, object]:
    """One step in this process, with what it took."""
    from cumulant.flows.data.validate import newest_snapshot, validate
    from cumulant.flows.features.feature_table import featurize
    from cumulant.flows.features.task import resolve_task
    from cumulant.flows.training.training_rows import labelled_rows
    from cumulant.project.file.loading import load

    begun, result = time.perf_counter(), 0
    with load(folder) as project:
        who = project.principal()
        if step.startswith("validate"):
            result = validate(project, principal=who).snapshots["payments"].rows_passed
        else:
            computed = featurize(project, principal=who)
            result = computed.rows
            if step == "online state":
                result = fill(project, computed)
            if step == "training set":
                snapshot = newest_snapshot(project, "payments")
                assert snapshot is not None
                task = resolve_task(project, {"payments": snapshot})
                policies = project.policies
                chosen = labelled_rows(
                    project,
                    task,
                    snapshot,
                    computed.table,
                    spec=project.training(),
                    evaluation=policies.evaluation,
                    as_of=None,
                )
                result = len(chosen.target)
    used = resource.getrusage(resource.RUSAGE_SELF)
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "rows": result,
        "cpu": used.ru_utime + used.ru_stime,
        "seconds": time.perf_counter() - begun,
        "peak": int(high.split()[1]) << 10,
    }


def fill(project: Project, computed: FeatureSet) -> int:
    """The events that were stored."""
    from cumulant.core.system.memory import memory_limit
    from cumulant.features.online.materialization import materialize
    from cumulant.flows.data.validate import newest_snapshot
    from cumulant.flows.features.feature_table import scans

    snapshot = newest_snapshot(project, "payments")
    assert snapshot is not None
    frames = scans(project, {"payments": snapshot}, {"payments": snapshot.id}, as_of=None)
    memory, scratch = memory_limit(project.policies.memory), project.state / "spill"
    return materialize(computed.plan, frames, project.online(), table="bench", memory=memory, scratch=scratch).rows


def run(folder: Path, step: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step}: {done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, rows: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Each step of a table of so many rows; prints a line of each."""
    chosen = min(options.training_rows, rows)
    (folder / "cumulant.yaml").write_text(PROJECT.format(rows=chosen, memory=options.memory))
    (folder / "features.py").write_text(FEATURES)
    write(folder, rows, 0, rows)
    given = sum(file.stat().st_size for file in (folder / "payments").iterdir())
    taken = {}
    for step in options.steps:
        if step == "validate a day more":
            write(folder, max(rows // 300, 1), math.ceil(rows / PART), rows)
        taken[step] = found = run(folder, step)
        print(
            f"| {rows:,} | {step} | {found['rows']:,} | {found['cpu']:.1f} | {found['seconds']:.1f} "
            f"| {found['peak'] / 2**20:,.0f} |",
            flush=True,
        )
    stored = sum(file.stat().st_size for file in (folder / ".cumulant").rglob("*") if file.is_file())
    print(f"\n{rows:,} rows: {given / 1e9:.2f} GB of files, {stored / 1e9:.2f} GB stored\n", flush=True)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory", default="1GiB", help="resources.memory of the project")
    parser.add_argument("--training-rows", type=int, default=500_000)
    parser.add_argument("--exponent", type=float, default=1.1)
    parser.add_argument(
        "--slack", type=float, default=1.25, help="of the declared memory, for what the estimate misses"
    )
    parser.add_argument("--out", type=Path, default=None, help="a folder for the files; default: the temporary one")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="besides validate; default: all")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(work(options.folder, options.step)))
        return
    options.steps = [step for step in STEPS if step == "validate" or step in options.steps]
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; resources.memory {options.memory}\n")
    print("| rows | step | result | CPU s | s | peak MiB |\n|---|---|---|---|---|---|", flush=True)
    taken = {}
    for rows in sorted(options.rows):
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.out) as name:
            free, needed = shutil.disk_usage(name).free, rows * 300
            if free < needed:
                raise SystemExit(f"{rows:,} rows need {needed / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free")
            taken[rows] = measure(Path(name), rows, options)
    faults = []
    for step in options.steps:
        (low, first), *_, (high, last) = [(rows, each[step]["cpu"]) for rows, each in taken.items()] * 2
        if high > low:
            exponent = math.log(last / first) / math.log(high / low)
            print(f"exponent of {step}: {exponent:.2f}")
            faults += [f"{step} grows by {exponent:.2f}"] if exponent > options.exponent else []
        for rows, each in taken.items():
            if each[step]["peak"] > size(options.memory) * options.slack:
                faults.append(f"{step} of {rows:,} rows takes {each[step]['peak'] / 2**20:,.0f} MiB")
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()

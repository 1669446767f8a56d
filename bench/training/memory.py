"""How much memory a training takes, and how much it was expected to take before its rows were read.

    python bench/training/memory.py --rows 300000 --numbers 12 --texts 4 --trainers linear,lightgbm

Made-up payments in one Parquet file; the features are computed by a process of its own. Of the process that trains, the
high-water mark (VmHWM) counts from the check of `resources.memory` to the end, less what it held at the check, in MiB.
Boosters are cut at 12 rounds and perceptrons at 2, which changes what they learn and not what they hold. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from cumulant.flows.features.feature_table import featurize
from cumulant.flows.training import memory_check
from cumulant.flows.training.train import train
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.training import memory_need

ME = Principal("bench")
PROJECT = """\
version: 1
model: {{name: payments}}
data: {{tx: {{path: tx.parquet, key: [id]{timed}}}}}
training:
  target: y
  time: null
  trials: 1
  trainers: [{trainers}]
  threads: {threads}
  final_fit: {final_fit}
evaluation: {{test: 20%}}
"""
FEATURES = 'from cumulant.features import source\n\nrow = source("tx").columns({names})\n'
#: values of the texts, in turn
SIZES = (5, 20, 200, 5000)


def payments(rows: int, numbers: int, texts: int, task: str) -> pl.DataFrame:
    """A third of the numbers whole, a quarter missing in one of twenty rows."""
    draw, score, columns = np.random.default_rng(0), np.zeros(rows), dict[str, pl.Series]()
    for place in range(numbers):
        values = draw.normal(size=rows) if place % 3 else draw.integers(0, 1000, rows) / 1.0
        score += 0.3 * values if place % 3 else 0.001 * values
        columns[f"n{place}"] = pl.Series(values)
        if place % 4 == 1:
            columns[f"n{place}"] = columns[f"n{place}"].scatter(np.flatnonzero(draw.random(rows) < 0.05), None)
    for place in range(texts):
        size = SIZES[place % len(SIZES)]
        code = draw.integers(0, size, rows)
        score += 0.5 * draw.normal(size=size)[code]
        columns[f"t{place}"] = pl.Series([f"value {one}" for one in range(size)]).gather(code)
    score += 2 * draw.normal(size=rows)
    found = {"binary": score > 1, "regression": score, "multiclass": np.clip(score.astype(int), 0, 4).astype(str)}[task]
    at = pl.Series(np.arange(rows) * 60_000_000).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"id": np.arange(rows), **columns, "y": found, "at": at})


def write(folder: Path, asked: argparse.Namespace) -> None:
    payments(asked.rows, asked.numbers, asked.texts, asked.task).write_parquet(folder / "tx.parquet")
    names = [f"n{one}" for one in range(asked.numbers)] + [f"t{one}" for one in range(asked.texts)]
    (folder / "features.py").write_text(FEATURES.format(names=", ".join(f'"{one}"' for one in names)))
    (folder / "cumulant.yaml").write_text(
        PROJECT.format(
            timed="" if asked.untimed else ", event_time: at",
            trainers=asked.trainers.replace(",", ", "),
            threads=asked.threads,
            final_fit=asked.final_fit,
        )
    )


def measure(folder: Path) -> dict[str, float]:
    """One training; what its process held at the check, and at most beside it, against what was expected."""
    from cumulant.training.trainers import catboost_trainer, lightgbm_trainer, mlp_trainer, xgboost_trainer

    for module in (lightgbm_trainer, catboost_trainer, xgboost_trainer):
        module.MOST_ROUNDS = 12  # type: ignore[attr-defined]
    mlp_trainer._MOST_ROUNDS = 2  # noqa: SLF001 - a fit of a bench that is not looked at
    found, expected = dict[str, float](), memory_need.total_need

    def total_need(need: memory_need.TrainingNeed, resident: int) -> int:
        total = expected(need, resident)
        found.update(held=resident / 2**20, expected=(total - resident) / 2**20)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        return total

    memory_check.total_need = total_need  # type: ignore[attr-defined]
    memory_check._LEAST = 0  # noqa: SLF001 - few rows are expected too
    train(load(folder), principal=ME)
    return found | {"measured": high_water() - found["held"]}


def high_water() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 300_000), ("numbers", 12), ("texts", 4), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--trainers", default="naive,linear,lightgbm")
    parser.add_argument("--task", choices=["binary", "regression", "multiclass"], default="binary")
    parser.add_argument("--final-fit", choices=["train", "all"], default="train")
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--step", choices=["write", "features", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step == "write":
        write(asked.folder, asked)
    elif asked.step == "features":
        featurize(load(asked.folder), principal=ME)
    elif asked.step == "train":
        print(json.dumps(measure(asked.folder)))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            own = [sys.executable, *sys.argv, "--folder", scratch, "--step"]
            for step in ("write", "features"):
                subprocess.run([*own, step], check=True)
            done = subprocess.run([*own, "train"], check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{asked.rows:,} rows, {asked.numbers} numbers, {asked.texts} texts, {asked.task}, {asked.trainers}: "
            f"expected {found['expected']:.0f} MiB, measured {found['measured']:.0f} "
            f"({found['expected'] / found['measured'] - 1:+.0%}) beside {found['held']:.0f}"
        )


if __name__ == "__main__":
    main()

"""Does a training stay within `resources.memory` with the number of rows that its refusal proposes?

    python bench/training/bounded.py --rows 3000000 --memory 1GiB --trainers lightgbm

Made-up payments in Parquet files of a million rows; the features are computed by a process of its own. Then a training
is refused, `training.rows` is set to what the refusal proposes, and another process trains. Its peak is the high-water
mark of its whole life, CPU seconds are those of all its threads. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
from memory import FEATURES, ME, payments

from cumulant.core.errors import UsageError
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.training.train import train
from cumulant.project.file.loading import load

PROJECT = """\
version: 1
model: {{name: payments}}
data: {{tx: {{path: "tx/*.parquet", key: [id]{timed}}}}}
training:
  target: y
  time: null
  trials: 2
  threads: 2
  trainers: [{trainers}]
  final_fit: {final_fit}
{rows}
evaluation: {{test: 20%}}
resources: {{memory: {memory}}}
"""
_FILE = 1_000_000


def write(folder: Path, asked: argparse.Namespace) -> None:
    """The same million rows again and again, with keys and times of their own."""
    (folder / "tx").mkdir()
    frame = payments(min(_FILE, asked.rows), asked.numbers, asked.texts, "binary")
    for number, begin in enumerate(range(0, asked.rows, _FILE)):
        part = frame.with_columns(pl.col("id") + begin, pl.col("at").dt.offset_by(f"{begin}m")).head(asked.rows - begin)
        part.write_parquet(folder / "tx" / f"part-{number:03d}.parquet")
    names = [f"n{one}" for one in range(asked.numbers)] + [f"t{one}" for one in range(asked.texts)]
    (folder / "features.py").write_text(FEATURES.format(names=", ".join(f'"{one}"' for one in names)))


def describe(folder: Path, asked: argparse.Namespace, bound: str | None = None) -> None:
    timed = "" if asked.untimed else ", event_time: at"
    rows = "" if bound is None else f"  rows: {bound}"
    text = PROJECT.format(
        timed=timed,
        trainers=asked.trainers.replace(",", ", "),
        final_fit=asked.final_fit,
        rows=rows,
        memory=asked.memory,
    )
    (folder / "cumulant.yaml").write_text(text)


def measured(folder: Path, step: str) -> dict[str, object]:
    """One flow in this process, with what it took."""
    found: dict[str, object] = {}
    if step == "features":
        featurize(load(folder), principal=ME)
    else:
        try:
            result = train(load(folder), principal=ME)
            found = {"train": result.split.train, "test": result.split.test, "trainer": result.training.trainer}
        except UsageError as error:
            found = {"hint": error.hint, "error": error.message}
    used = resource.getrusage(resource.RUSAGE_SELF)
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return found | {"MiB": int(high.split()[1]) >> 10, "CPU": round(used.ru_utime + used.ru_stime, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 3_000_000), ("numbers", 8), ("texts", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--trainers", default="lightgbm", help="several by `;` are trained one after the other")
    parser.add_argument("--final-fit", choices=["train", "all"], default="train")
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--step", choices=["features", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step is not None:
        print(json.dumps(measured(asked.folder, asked.step)))
        return

    def run(folder: Path, step: str) -> dict[str, object]:
        own = [sys.executable, __file__, "--folder", str(folder), "--step", step]
        done = subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return found

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, asked)
        trainers = asked.trainers.split(";")
        describe(folder, argparse.Namespace(**vars(asked) | {"trainers": trainers[0]}))
        print(f"{asked.rows:,} rows: features {run(folder, 'features')}", flush=True)
        for each in trainers:
            one = argparse.Namespace(**vars(asked) | {"trainers": each})
            describe(folder, one)
            refused = run(folder, "train")
            bound = re.search(r"training\.rows: ([\d.]+[kMG]?)", str(refused.get("hint")))
            print(f"{each}: without training.rows {refused}", flush=True)
            if bound is not None:
                describe(folder, one, bound[1])
                print(f"{each}: rows {bound[1]} within {asked.memory}: {run(folder, 'train')}", flush=True)


if __name__ == "__main__":
    main()

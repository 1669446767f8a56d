"""A table of many columns and few rows: processor seconds of `new --from` and of a first `train --quick`.

python bench/projects/wide.py [--columns 2000] [--rows 200]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

CUMULANT = Path(sys.executable).with_name("cumulant")


def processor_seconds(*arguments: str, folder: Path) -> float:
    before = os.times()
    done = subprocess.run([CUMULANT, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: the gate refused the model
        raise SystemExit(done.stderr)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    values = np.random.default_rng(3).random((options.rows, options.columns)).round(2)
    table = pl.DataFrame(values, schema=[f"f{number}" for number in range(options.columns)])
    table = table.with_columns(late=pl.Series(np.arange(options.rows) % 2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table.write_csv(folder / "wide.csv")
        new = processor_seconds("new", "wide", "--from", "wide.csv", "--target", "late", folder=folder)
        train = processor_seconds("train", "--quick", "--project", "wide", folder=folder)
    print(f"| {options.columns:,} x {options.rows:,} | {new:.1f} | {train:.1f} |")


if __name__ == "__main__":
    main()

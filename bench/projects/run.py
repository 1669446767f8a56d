"""Whole projects through the command line: the fraud handbook with and without windows, and the demo.

    python bench/projects/run.py ../shared/data [fraud|demo]

Prints Markdown rows with what was measured: seconds and peak memory of the whole process tree's main process.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CUMULANT = Path(sys.executable).with_name("cumulant")

PROJECT = """\
version: 1
model: {{name: card-fraud}}
data:
  tx:
    path: {path}
    key: TRANSACTION_ID
    event_time: {{column: TX_DATETIME, zone: UTC}}
    known_time: {{7d: [TX_FRAUD, TX_FRAUD_SCENARIO]}}
    rules: {{TX_AMOUNT: {{min: 0, max: 10000}}, TX_FRAUD: {{in: [0, 1]}}}}
training:
  target: TX_FRAUD
  since: 2018-05-01
  cost: {{false_negative: TX_AMOUNT, false_positive: 5}}
  threshold: {{alerts: 100/day}}
evaluation:
  test: 14d
"""

ROW_ONLY = """\
from cumulant.features import col, source

tx = source("tx")
row = tx.columns("TX_AMOUNT")
night = col("TX_DATETIME").dt.hour("Europe/Paris") < 6
weekday = col("TX_DATETIME").dt.weekday("Europe/Paris")
"""


def run(*arguments: str) -> tuple[dict, float, float]:
    """The command's JSON document, its seconds and its peak memory in MB."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.perf_counter()
    done = subprocess.run([CUMULANT, *arguments, "--json"], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    peak = max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr or done.stdout)
    return json.loads(done.stdout), seconds, peak


def shown(metric: dict) -> str:
    return f"{metric['value']:.4f} [{metric['low']:.4f}, {metric['high']:.4f}]"


def fraud(data: Path, folder: Path) -> None:
    source = (data / "fraud" / "handbook_tx_2018-04_06.parquet").resolve()
    windows = (ROOT / "examples" / "fraud" / "features.py").read_text()
    print("| fraud handbook, 872,795 rows, 20 trials | average precision, last 14 days | naive | seconds | peak MB |")
    print("|---|---|---|---|---|")
    for name, features in (("row only", ROW_ONLY), ("with windows", windows)):
        project = folder / name.replace(" ", "-")
        project.mkdir()
        (project / "cumulant.yaml").write_text(PROJECT.format(path=source))
        (project / "features.py").write_text(features)
        found, seconds, peak = run("train", "--trials", "20", "--project", str(project))
        training = found["training"]
        model, naive = training["metrics"]["average_precision"], training["naive"]["average_precision"]
        print(f"| {name} | {shown(model)} | {naive['value']:.4f} | {seconds:.0f} | {peak:.0f} |", flush=True)


def demo(folder: Path) -> None:
    print("| demo | average precision | naive | seconds | peak MB |")
    print("|---|---|---|---|---|")
    for name in ("first", "again"):
        found, seconds, peak = run("demo", "--dir", str(folder / "demo"))
        training = found["training"]
        model, naive = training["metrics"]["average_precision"], training["naive"]["average_precision"]
        print(f"| {name} | {shown(model)} | {naive['value']:.4f} | {seconds:.1f} | {peak:.0f} |", flush=True)


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT.parent / "shared" / "data")
    wanted = sys.argv[2:] or ["demo", "fraud"]
    folder = Path(tempfile.mkdtemp(prefix="cumulant-bench-"))
    try:
        if "demo" in wanted:
            demo(folder)
        if "fraud" in wanted:
            fraud(data, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""Drift of 1,000,000 rows x 50 columns against as many: time and peak memory beside the hand-written limit and Evidently.

    drift.py [FOLDER] [--peer]      FOLDER holds the two files, made when missing (default: a temporary one)

Each measurement is a process of its own, and they take turns. `--peer` runs Evidently once (peers.sh; about 3 minutes, 6 GB).
False alarms where nothing changes: nulls.py.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS, NUMBERS, TEXTS, MOVED, TURNS = 1_000_000, 30, 20, 5, 3
MODES = ("ours in memory", "bare in memory", "ours from files", "bare from files", "a new day")


def make(path, seed, moved):
    """30 numbers of four kinds, some with 5% missing, and 20 texts of 2 to 50 values; `moved` of each are shifted."""
    import numpy as np
    import polars as pl

    generator, found = np.random.default_rng(seed), {}
    for place in range(NUMBERS):
        by = 0.3 if place < moved else 0.0
        values = (
            generator.normal(by, 1, ROWS),
            generator.lognormal(by, 1, ROWS),
            generator.poisson(20 + 4.5 * by, ROWS).astype(float),
            generator.uniform(by / 4, 1 + by / 4, ROWS),
        )[place % 4]
        if place % 5 == 4:
            values[generator.random(ROWS) < 0.05] = np.nan
        found[f"n{place}"] = values
    for place in range(TEXTS):
        count = (2, 3, 5, 8, 12, 20, 30, 50)[place % 8]
        weights = 1 / np.arange(1, count + 1) ** (1.3 if place < moved else 1.0)
        codes = generator.choice(count, ROWS, p=weights / weights.sum())
        found[f"c{place}"] = pl.Series(
            np.array([f"k{code}" for code in range(count)], dtype=object)[codes], dtype=pl.String
        )
    pl.DataFrame(found).write_parquet(path)


def peak():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024


def once(mode, before, now):
    """One measurement, in this process."""
    import numpy as np  # noqa: F401
    import polars as pl
    from scipy import special, stats  # noqa: F401

    sys.path.insert(0, str(HERE))
    import bare

    from cumulant.monitoring.drift import comparing, profiling  # noqa: F401
    from cumulant.monitoring.drift.comparing import compare
    from cumulant.monitoring.drift.profiling import profile

    columns = dict.fromkeys(pl.read_parquet_schema(before), "feature")
    if "memory" in mode:
        before, now = pl.read_parquet(before), pl.read_parquet(now)
    elif mode != "bare from files":
        before, now = pl.scan_parquet(before), pl.scan_parquet(now)
    reference = profile(before, columns) if mode == "a new day" else None
    began, worked = time.perf_counter(), time.process_time()
    if mode.startswith("bare"):
        found = bare.in_memory(before, now) if "memory" in mode else bare.from_files(before, now, threads=2)
        drifted = sum(one[1] >= 0.1 for one in found.values())
    else:
        reference = reference or profile(before, columns)
        current = profile(now, columns, like=reference)
        drifted = len(compare(reference, current).findings)
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
    print(json.dumps({"what": mode, **took, "peak_mb": peak(), "drifted": drifted}))


def measured(command):
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(ended.stderr[-2000:])
    return json.loads(ended.stdout.splitlines()[-1])


def main(folder, peer):
    before, now = folder / "before.parquet", folder / "now.parquet"
    for path, seed, moved in ((before, 1, 0), (now, 2, MOVED)):
        if not path.exists():
            make(path, seed, moved)
    found = {mode: [] for mode in MODES}
    for _ in range(TURNS):
        for mode in MODES:
            found[mode].append(measured([sys.executable, __file__, "--once", mode, str(before), str(now)]))
    if peer:
        python = HERE / ".peers" / "bin" / "python"
        found["evidently"] = [measured([str(python), str(HERE / "evidently_report.py"), str(before), str(now)])]
    for mode, all_ in found.items():
        seconds, cpu = ([one[key] for one in all_] for key in ("seconds", "cpu"))
        print(
            f"{mode}: {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}), processors "
            f"{statistics.median(cpu):.2f} s ({min(cpu):.2f}-{max(cpu):.2f}), peak {max(one['peak_mb'] for one in all_):.0f} MB, "
            f"{all_[0]['drifted']} drifted"
        )
    for how in ("in memory", "from files"):
        for key, name in (("seconds", "time"), ("cpu", "processor time")):
            ratios = [
                ours[key] / theirs[key] for ours, theirs in zip(found[f"ours {how}"], found[f"bare {how}"], strict=True)
            ]
            print(
                f"{how}: {statistics.median(ratios):.2f} x the hand-written's {name} ({min(ratios):.2f}-{max(ratios):.2f}), goal at most 2"
            )
    if peer:
        theirs, ours = found["evidently"][0], found["ours in memory"]
        for key, name in (("seconds", "time"), ("cpu", "processor time")):
            print(
                f"evidently: {theirs[key] / statistics.median(one[key] for one in ours):.0f} x our {name}, goal at least 40"
            )
        print(f"evidently: {theirs['peak_mb'] / max(one['peak_mb'] for one in ours):.1f} x our memory, goal at least 2")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--once"]:
        once(*arguments[1:])
    else:
        peer = "--peer" in arguments
        given = [one for one in arguments if not one.startswith("--")]
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(given[0] if given else temporary), peer)

"""Quantize magika's network on files of this machine: size, speed and agreement of every form.

    python bench/packaging/quantize.py MODEL.onnx [--loss 0.01] [FOLDER ...]

MODEL is `standard_v3_3` of the package `magika`. 4,400 files are taken and shuffled: 2,400 are the sample (400 to learn
from, 2,000 that every form is held to and by which it is chosen), the others are 2,000 files that nothing has seen and on
which the chosen forms are judged. Shuffled, because the files come with a cap on each suffix: in the order in which they
are found, later ones are of rarer kinds, and the sample would not be a sample of the files that it is judged on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime

from cumulant.packaging.quantize.choice import ORIGINAL, choose_form
from cumulant.packaging.quantize.measure import measure_agreement, run_sample, time_engines
from cumulant.packaging.quantize.search import try_forms
from cumulant.servable.engine import Engine

SAMPLE, FRESH, OF_ONE_SUFFIX = 2400, 2000, 100
BLOCK, END, PADDING, FEWEST = 4096, 1024, 256, 8


def features(path: Path) -> np.ndarray:
    """The network's input for one file: the first and last 1,024 bytes of its stripped ends, padded with 256."""
    size = path.stat().st_size
    count = min(size, BLOCK)
    with path.open("rb") as file:
        first = file.read(count).lstrip()[:END]
        file.seek(size - count)
        last = file.read(count).rstrip()[-END:]
    row = np.full(2 * END, PADDING, np.int32)
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[2 * END - len(last) :] = np.frombuffer(last, np.uint8)
    return row


def files(folders: list[str], wanted: int) -> np.ndarray:
    """Different files in an order by the hash of their paths, at most `OF_ONE_SUFFIX` of a suffix."""
    paths = [os.path.join(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names]
    paths.sort(key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
    kinds, rows = Counter(), {}
    for path in map(Path, paths):
        if kinds[path.suffix.lower()] >= OF_ONE_SUFFIX or path.is_symlink() or not path.is_file():
            continue
        try:
            row = features(path)
        except OSError:
            continue
        # magika does not ask the network about shorter files
        if row[FEWEST - 1] != PADDING and row.tobytes() not in rows:
            rows[row.tobytes()] = row
            kinds[path.suffix.lower()] += 1
        if len(rows) == wanted:
            return np.stack([*rows.values()])
    raise SystemExit(f"only {len(rows)} files of {wanted}; name more folders")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folders", nargs="*", default=["/usr"])
    parser.add_argument("--loss", type=float, default=0.01)
    options = parser.parse_args()
    rows = files(options.folders, SAMPLE + FRESH)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    sample, fresh = {"bytes": rows[:SAMPLE]}, {"bytes": rows[SAMPLE:]}
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    print(
        f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, numpy {np.__version__}"
    )
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = try_forms(options.model, sample, accuracy_loss=options.loss, folder=Path(folder), budget=60)
        print(f"tried in {time.perf_counter() - started:.0f} s; load {os.getloadavg()[0]:.1f}\n")
        print(
            "| form | bytes | smaller | agreement, 2,000 files | at least (95%) | time at 1 row | time at 32 rows |\n|---|---|---|---|---|---|---|"
        )
        original = found.trials[0]
        for one in found.trials:
            if one.fault:
                print(f"| {one.kind} | {one.fault} |  |  |  |  |  |")
                continue
            times = [f"{pace.ratio:.2f} [{pace.low:.2f}, {pace.high:.2f}]" for pace in one.paces]
            print(
                f"| {one.kind} | {one.size:,} | {original.size / one.size:.2f} x | {one.agreement:.2%} | {one.assured:.2%} | {' | '.join(times)} |"
            )
        judge(found, options.loss, fresh)


def judge(found, loss: float, fresh: dict) -> None:
    engine = Engine(found.paths[ORIGINAL])
    expected = run_sample(engine, fresh)
    classes = len(np.unique(expected[0].argmax(axis=1)))
    for aim in ("size", "speed"):
        candidates = choose_form(found.trials, aim=aim, accuracy_loss=loss)
        chosen = next(one for one in candidates if one.chosen)
        other = Engine(found.paths[chosen.kind])
        share = measure_agreement(expected, run_sample(other, fresh))
        both = time_engines([engine, other], fresh, budget=30)[1]
        times = ", ".join(
            f"{pace.ratio:.2f} of the time at {pace.rows} rows ({pace.seconds * 1e3:.1f} ms)" for pace in both
        )
        print(
            f"\n{aim}: {chosen.kind}, {found.trials[0].size / chosen.size:.2f} x smaller; on {len(fresh['bytes']):,} other files "
            f"({classes} classes) agreement {share:.2%}; {times}\n  {chosen.reason}"
        )
        for one in candidates:
            if not one.chosen:
                print(f"    {one.kind}: {one.reason}")


if __name__ == "__main__":
    main()

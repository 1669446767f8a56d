"""Rows/s of `cumulant predict` for a Parquet file against the engine alone on the same threads, within a minute.

`batch.py [ROWS]`: 300 trees of 63 leaves on 30 floats (`model.py`), 2 million rows. The engine alone scores a matrix that
is in memory already, in the way of the two that is faster: one run with all threads, or one-threaded runs side by side.
It scores a tenth of the rows, before and after, so that other work on the machine shows; the pipeline stops after 40 s,
as a kill would stop it, and its speed is that of the parts that it wrote.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from model import WIDTH, write_servable

from cumulant.runtime.batch import BatchRequest, predict_file
from cumulant.runtime.batch.lanes import cores
from cumulant.runtime.batch.models import in_folder

ROWS, GROUP, SECONDS = 2_000_000, 250_000, 40.0
SLICES = (1024, 4096, 16_384)


class Stopped(Exception):
    """The time is over."""


def session(model: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])


def alone(model: Path, matrix: Any, threads: int) -> dict[str, float]:
    """Rows/s of the engine, by the way it is run."""
    one, many = session(model, 1), session(model, threads)
    found: dict[str, float] = {}
    with ThreadPoolExecutor(threads) as pool:
        for size in SLICES:
            starts = range(0, len(matrix), size)
            found[f"all threads in a run, {size} rows"] = rate(
                lambda size=size, starts=starts: [many.run(None, {"input": matrix[at : at + size]}) for at in starts],
                len(matrix),
            )
            found[f"runs side by side, {size} rows"] = rate(
                lambda size=size, starts=starts: list(
                    pool.map(lambda at: one.run(None, {"input": matrix[at : at + size]}), starts)
                ),
                len(matrix),
            )
    return found


def rate(work: Callable[[], object], rows: int) -> float:
    begun = time.perf_counter()
    work()
    return rows / (time.perf_counter() - begun)


def pipeline(model: Path, given: Path, out: Path) -> float:
    """Rows/s from the first part that is written to the last, of the whole command's work."""
    begun, seen = time.perf_counter(), [0]

    def progress(text: str, share: float | None = None) -> None:
        if share is not None:
            seen[0] = int(text.split(" ", maxsplit=1)[0].replace(",", ""))
            if time.perf_counter() - begun > SECONDS:
                raise Stopped

    request = BatchRequest(input=str(given), output=out)
    with suppress(Stopped):
        seen[0] = predict_file(in_folder(model, []), request, progress=progress).rows
    return seen[0] / (time.perf_counter() - begun)


def main(rows: int) -> None:
    draw, threads = np.random.default_rng(1), cores()
    with tempfile.TemporaryDirectory() as folder:
        model, given = write_servable(Path(folder) / "model"), Path(folder) / "in.parquet"
        names = in_folder(model, []).described.columns  # type: ignore[union-attr]
        matrix = draw.normal(size=(rows, WIDTH)).astype("f4")
        pl.DataFrame(matrix, schema=list(names)).write_parquet(given, row_group_size=GROUP)
        sample = matrix[: max(SLICES[-1] * threads, min(100_000, rows // 10))]
        before = alone(model, sample, threads)
        speed = pipeline(model, given, Path(folder) / "out.parquet")
        after = alone(model, sample[: len(sample) // 2], threads)
    best = max(before, key=before.__getitem__)
    engine = (max(before.values()) + max(after.values())) / 2
    print(f"{threads} threads, {rows:,} rows x {WIDTH}")
    for name in before:
        print(f"  engine alone, {name}: {before[name]:,.0f} rows/s before, {after[name]:,.0f} after")
    print(f"  engine alone, best ({best}): {engine:,.0f} rows/s")
    print(f"  predict, file to file: {speed:,.0f} rows/s, {speed / engine:.2f} of the engine alone (goal 0.80)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)

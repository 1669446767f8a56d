"""Rows/s of `cumulant predict` for a Parquet file against the engine alone on the same threads, within a minute.

`batch.py [ROWS]`: 300 trees of 63 leaves on 30 floats (`model.py`), 2 million rows. The engine alone scores a matrix that
is in memory already, in the way of the two that is faster: one run with all threads, or one-threaded runs side by side.
It scores at most 50,000 of the rows, before and after, so that other work on the machine shows; the pipeline stops after 30 s,
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
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import polars as pl
from model import WIDTH, write_servable

from cumulant.flows.serving.batch.batch_model import load_folder
from cumulant.flows.serving.batch.flow import BatchRequest, predict_file
from cumulant.flows.serving.batch.parallel_engine import available_cores

ROWS, GROUP, SECONDS = 2_000_000, 250_000, 30.0
SLICES = (1024, 4096)


class Rate(NamedTuple):
    """Rows a second of the clock, and of the processors' time in all threads of the process."""

    wall: float
    processor: float


class Stopped(Exception):
    """The time is over."""


def session(model: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])


def alone(model: Path, matrix: Any, threads: int) -> dict[str, Rate]:
    """Rows/s of the engine, by the way it is run."""
    one, many = session(model, 1), session(model, threads)
    found: dict[str, Rate] = {}
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


def rate(work: Callable[[], object], rows: int) -> Rate:
    begun, used = time.perf_counter(), time.process_time()
    work()
    return Rate(rows / (time.perf_counter() - begun), rows / (time.process_time() - used))


def pipeline(model: Path, given: Path, out: Path) -> Rate:
    """Rows/s of the whole command's work, start and end included."""
    begun, used, seen = time.perf_counter(), time.process_time(), [0]

    def progress(text: str, share: float | None = None) -> None:
        if share is not None:
            seen[0] = int(text.split(" ", maxsplit=1)[0].replace(",", ""))
            if time.perf_counter() - begun > SECONDS:
                raise Stopped

    request = BatchRequest(input=str(given), output=out)
    with suppress(Stopped):
        seen[0] = predict_file(load_folder(model, []), request, progress=progress).rows
    return Rate(seen[0] / (time.perf_counter() - begun), seen[0] / (time.process_time() - used))


def main(rows: int) -> None:
    draw, threads = np.random.default_rng(1), available_cores()
    with tempfile.TemporaryDirectory() as folder:
        model, given = write_servable(Path(folder) / "model"), Path(folder) / "in.parquet"
        names = load_folder(model, []).described.columns  # type: ignore[union-attr]
        matrix = draw.normal(size=(rows, WIDTH)).astype("f4")
        pl.DataFrame(matrix, schema=list(names)).write_parquet(given, row_group_size=GROUP)
        sample = matrix[: max(SLICES[-1] * threads, min(50_000, rows // 10))]
        before = alone(model, sample, threads)
        speed = pipeline(model, given, Path(folder) / "out.parquet")
        after = alone(model, sample, threads)
    best = max(before, key=lambda name: before[name].wall)
    engine = Rate(*((one + other) / 2 for one, other in zip(before[best], after[best], strict=True)))
    print(f"{threads} threads, {rows:,} rows x {WIDTH}; rows/s by the clock (by processor time)")
    for name in before:
        print(f"  engine alone, {name}: {said(before[name])} before, {said(after[name])} after")
    print(f"  predict, file to file: {said(speed)}")
    print(
        f"  of the engine alone, {best}: {speed.wall / engine.wall:.2f} ({speed.processor / engine.processor:.2f}), goal 0.80"
    )


def said(one: Rate) -> str:
    return f"{one.wall:,.0f} ({one.processor:,.0f})"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)

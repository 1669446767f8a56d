"""Measurements of a form: agreement of its answers, and time relative to the original."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.packaging.quantize.decisions import decides, decisions_kept, exact_limit
from cumulant.servable.engine import Engine

Array = NDArray[Any]
Sample = Mapping[str, Array]

#: rows a call where time is measured
BATCHES = (1, 32)
#: rows a call where only answers are wanted
_STEP = 32
_REPETITIONS = (7, 60)
#: of the normal distribution: 95% lie below it
_ONE_SIDED = 1.6449


class FormTiming(NamedTuple):
    """Seconds a call of `rows` rows, and the time as a share of the original's, both at the median.

    `low` and `high` bound the share's median: half the distance between quartiles, times 1.57 / sqrt(repetitions),
    on both sides, as in a notched box plot.
    """

    rows: int
    seconds: float
    ratio: float
    low: float
    high: float


def count_rows(sample: Sample) -> int:
    """Rows of the sample.

    Raises:
        DataError: its arrays differ in length, or it has none.
    """
    lengths = {len(value) for value in sample.values()}
    if len(lengths) != 1:
        raise DataError(f"the sample's arrays must have one number of rows; they have {sorted(lengths)}")
    return lengths.pop()


def fixed_rows(engine: Engine) -> int | None:
    """The number of rows that the graph insists on, if it does."""
    sizes = {spec.shape[0] for spec in engine.inputs if spec.shape and spec.shape[0] > 0}
    return max(sizes, default=None)


def run_sample(engine: Engine, sample: Sample) -> list[Array]:
    """Every output for all rows of the sample; of a graph with fixed rows, for as many as fill whole calls."""
    step = fixed_rows(engine) or _STEP
    whole = count_rows(sample) // step * step if fixed_rows(engine) else count_rows(sample)
    parts = [
        engine.run({name: value[start : min(start + step, whole)] for name, value in sample.items()})
        for start in range(0, whole, step)
    ]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def measure_agreement(expected: Sequence[Array], answers: Sequence[Array], threshold: float | None = None) -> float:
    """The share of rows with the same decision, or 1 - relative error; the worst output and threshold count.

    What is decided is defined by `decisions.decisions_kept`. A number that should be finite and is not makes it 0.
    """
    return min(
        _output_agreement(original, answer, threshold) for original, answer in zip(expected, answers, strict=True)
    )


def _output_agreement(expected: Array, answers: Array, threshold: float | None) -> float:
    if not _comparable(expected, answers):
        return 0.0
    rows = decisions_kept(expected, answers, threshold)
    return (
        max(0.0, 1 - relative_error(expected, answers))
        if rows is None
        else min(float(agrees.mean()) for agrees in rows)
    )


def _comparable(expected: Array, answers: Array) -> bool:
    if expected.shape != answers.shape:
        return False
    return expected.dtype.kind != "f" or bool((np.isfinite(answers) | ~np.isfinite(expected)).all())


def agreement_bound(expected: Sequence[Array], answers: Sequence[Array], threshold: float | None = None) -> float:
    """What the agreement is at least, at one-sided 95% confidence; of the worst output and threshold.

    The exact limit where the agreement is a share of rows, of a relative error that of the normal distribution.
    """
    return min(_bound(original, answer, threshold) for original, answer in zip(expected, answers, strict=True))


def _bound(expected: Array, answers: Array, threshold: float | None) -> float:
    agrees = _output_agreement(expected, answers, threshold)
    if not decides(expected, threshold):
        return min(agrees, 1 - _largest_error(expected, answers)) if agrees else 0.0
    # a row keeps its labels where it keeps all of them, at the rate at which single ones are kept
    return exact_limit(math.floor(agrees * len(expected) + 1e-9), len(expected))


def _largest_error(expected: Array, answers: Array) -> float:
    """The upper one-sided 95% limit of the relative error, a ratio of two means (Cochran 1977, 2.11)."""
    usable = np.isfinite(expected)
    wide = np.where(usable, expected, 0).astype(np.float64)
    lost = np.where(usable, answers, 0).astype(np.float64) - wide
    squares = [(values**2).reshape(len(values), -1).sum(axis=1) for values in (lost, wide)]
    total = max(float(squares[1].sum()), 1e-24)
    ratio = float(squares[0].sum()) / total
    spread = float(np.sqrt(((squares[0] - ratio * squares[1]) ** 2).sum())) / total
    return math.sqrt(ratio + _ONE_SIDED * spread)


def is_share(answers: Sequence[Array], threshold: float | None = None) -> bool:
    """Whether the agreement of such answers is a share of rows, for one output at least."""
    return any(decides(answer, threshold) for answer in answers)


def relative_error(expected: Array, answers: Array) -> float:
    """|answers - expected| / |expected| as Euclidean norms over the finite values; infinite for a lost number."""
    usable = np.isfinite(expected)
    if not np.isfinite(answers[usable]).all():
        return math.inf
    wide = expected[usable].astype(np.float64)
    distance = float(np.linalg.norm(answers[usable].astype(np.float64) - wide))
    return distance / max(float(np.linalg.norm(wide)), 1e-12) if distance else 0.0


def measure_distance(expected: Sequence[Array], answers: Sequence[Array]) -> float:
    """Relative error over the float outputs: finer than agreement, to find what hurts least."""
    pairs = [
        (original, answer) for original, answer in zip(expected, answers, strict=True) if original.dtype.kind == "f"
    ]
    return max((relative_error(original, answer) for original, answer in pairs), default=0.0)


def time_engines(engines: Sequence[Engine], sample: Sample, *, budget: float) -> list[tuple[FormTiming, ...]]:
    """The pace of each engine, the original first, in about `budget` seconds; repetitions are interleaved."""
    fixed = fixed_rows(engines[0])
    sizes = (fixed,) if fixed else tuple(size for size in BATCHES if size <= count_rows(sample))
    by_size = [_time_batch(engines, sample, size, budget / len(sizes)) for size in sizes]
    return list(zip(*by_size, strict=True))


def _time_batch(engines: Sequence[Engine], sample: Sample, rows: int, budget: float) -> list[FormTiming]:
    feeds = {name: np.ascontiguousarray(value[:rows]) for name, value in sample.items()}
    for engine in engines:
        engine.run(feeds)
    started = time.perf_counter()
    rounds = [[_seconds(engine, feeds) for engine in engines]]
    single = time.perf_counter() - started
    fewest, most = _REPETITIONS
    wanted = min(most, max(fewest, int(budget / max(single, 1e-6))))
    rounds += [[_seconds(engine, feeds) for engine in engines] for _ in range(wanted - 1)]
    return [_timing(rows, place, rounds) for place in range(len(engines))]


def _seconds(engine: Engine, feeds: Sample) -> float:
    started = time.perf_counter()
    engine.run(feeds)
    return time.perf_counter() - started


def _timing(rows: int, place: int, rounds: Sequence[Sequence[float]]) -> FormTiming:
    ratios = np.array([times[place] / times[0] for times in rounds])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    notch = 1.57 * (high - low) / math.sqrt(len(ratios))
    return FormTiming(
        rows, median(times[place] for times in rounds), float(middle), float(middle - notch), float(middle + notch)
    )


def run_model(model: Any, sample: Sample) -> list[Array]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return run_sample(Engine(path), sample)

"""Test whether a row's answer depends on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cumulant.core.errors import OutOfMemoryError, RequestError
from cumulant.core.servable import Batching
from cumulant.servable.engine import Array, Engine

#: rows that are scored alone, at most
_ROWS = 256
_SIZES = (2, 3, 7, 16, 64, 256)
_ORDERS = 3


def measure_batching(engine: Engine, feeds: Mapping[str, Array], most: int = _ROWS) -> Batching:
    """Score up to `most` rows one by one, and in batches of several sizes and orders; exact if no bit differs."""
    if any(not spec.shape for spec in engine.inputs):
        return Batching(exact=False, reason="an input is a single value, which another request need not share")
    fixed = next((spec.shape[0] for spec in engine.inputs if spec.shape[0] != -1), None)
    if fixed is not None:
        return Batching(exact=False, reason=f"the number of rows is fixed: the graph takes {fixed} rows a call")
    feeds = {name: array[:most] for name, array in feeds.items()}
    count = len(next(iter(feeds.values())))
    if count < _SIZES[0]:
        return Batching(exact=False, reason="one row cannot be tried beside another")
    try:
        return _compare(engine, feeds, count)
    except (RequestError, OutOfMemoryError) as error:
        return Batching(exact=False, reason=f"it could not be tried: {error.message}")


def _compare(engine: Engine, feeds: Mapping[str, Array], count: int) -> Batching:
    alone = engine.run_each([_taken(feeds, np.arange(row, row + 1)) for row in range(count)])
    if any(len(output) != 1 for output in alone[0]):
        return Batching(exact=False, reason="an output has not one row for each row of the inputs")
    single = [np.concatenate(parts) for parts in zip(*alone, strict=True)]
    worst: dict[str, float] = {}
    for batches in _batches(count):
        answers = engine.run_each([_taken(feeds, rows) for rows in batches])
        for rows, batched in zip(batches, answers, strict=True):
            for spec, lone, many in zip(engine.outputs, single, batched, strict=True):
                if many.shape[:1] != (len(rows),) or many.shape[1:] != lone.shape[1:]:
                    return Batching(exact=False, reason=f"{spec.name} changes its shape with the rows beside a row")
                if not same_bits(lone[rows], many):
                    worst[spec.name] = max(worst.get(spec.name, 0.0), _difference(lone[rows], many))
    if worst:
        changes = ", ".join(f"{name} by up to {value:.2g}" for name, value in worst.items())
        return Batching(exact=False, reason=f"the rows beside a row change {changes}")
    sizes = ", ".join(str(size) for size in _SIZES if size <= count)
    return Batching(exact=True, reason=f"{count} rows alone and in batches of {sizes}: no bit differs")


def _taken(feeds: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    return {name: array[rows] for name, array in feeds.items()}


def _batches(count: int) -> Iterator[list[Array]]:
    """All rows in batches of one size, once for each size and order."""
    rng = np.random.default_rng(1)
    for size in (size for size in _SIZES if size <= count):
        for turn in range(_ORDERS):
            order = rng.permutation(count) if turn else np.arange(count)
            yield [order[start : start + size] for start in range(0, count, size)]


def same_bits(first: Array, second: Array) -> bool:
    """Whether two arrays are equal to the last bit, NaN for NaN."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype == object:
        return bool((first == second).all())
    return np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()


def _difference(first: Array, second: Array) -> float:
    if first.dtype.kind not in "fiu":
        return 1.0
    gaps: Sequence[float] = np.abs(first.astype(np.float64) - second.astype(np.float64)).ravel().tolist()
    return max(gaps, default=0.0)

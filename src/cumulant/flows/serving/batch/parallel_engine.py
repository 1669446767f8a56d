"""One engine on all cores: slices of a piece in parallel, each in one thread.

A run with several threads of its own adds up in another order, and so answers otherwise in the last bit than a server
does; it is slower too (two threads, 300 trees: 0.8 of the speed).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Scored = TypeVar("Scored")
_SIZES = (16, 64, 256, 1024, 4096)
#: seconds that may go into finding the best size, and in which a part should be scored
_PATIENCE, _PART_SECONDS = 1.0, 1.0
_MOST_ROWS = 1 << 17
#: a larger size must be that much faster
_GAIN = 1.02


def available_cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Lanes:
    """`threads` threads that score slices of `size` rows."""

    def __init__(self, threads: int, size: int) -> None:
        self.threads, self.size = threads, size
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")

    def each(self, score: Callable[[slice], Scored], rows: int) -> list[Scored]:
        """`score` of every slice of so many rows, in order; of no rows, of one empty slice."""
        starts = range(0, max(rows, 1), self.size)
        return list(self._pool.map(score, [slice(at, min(rows, at + self.size)) for at in starts]))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def find_best_size(score: Callable[[slice], object], rows: int) -> tuple[int, float]:
    """Rows a run at which one thread scores most a second, and how many it then scores; `score` takes any slice."""
    score(slice(0, min(rows, _SIZES[0])))  # the first run makes room for what the graph needs
    best, begun = (1, 0.0), time.perf_counter()
    for size in (size for size in _SIZES if size <= max(rows, _SIZES[0])):
        speed = _speed(score, size, rows)
        if speed > best[1] * _GAIN:
            best = (size, speed)
        if time.perf_counter() - begun > _PATIENCE:
            break
    return best


def _speed(score: Callable[[slice], object], size: int, rows: int) -> float:
    """Rows a second of this thread's processor time, over all rows or as many as the time allows."""
    begun = time.thread_time()
    for at in range(0, rows, size):
        score(slice(at, min(rows, at + size)))
        spent = time.thread_time() - begun
        if spent > _PATIENCE / len(_SIZES):
            break
    return min(rows, at + size) / max(1e-9, spent)


def part_rows(size: int, speed: float, threads: int) -> int:
    """Rows of a part: about a second's work, at least a slice for each thread, at most 131,072."""
    whole = int(speed * threads * _PART_SECONDS) // size * size
    return max(1, min(_MOST_ROWS, max(whole, size * threads)))

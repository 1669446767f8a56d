"""Parts of the training rows: the means of the target for the rows of a part are learned from rows outside it.

A part is to its learned rows what new rows are to the training rows, as in the folds: later rows where rows have times,
other groups where they have groups.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cumulant.training.splits import group_parts
from cumulant.training.trainers.trainer import TrainingSample

Index = NDArray[np.int64]

_PARTS = 5
#: more than parts, since nothing is known in the first block
_BLOCKS = 10
_SEED = 20_161


def parts(rows: TrainingSample) -> Iterator[tuple[Index, Index]]:
    """Positions of the rows of each part, and of the rows that their means are learned from (none: nothing is known).

    With times, parts are blocks of time, learned from the labels known before the block begins. Without, a group lies
    in one part; without groups, parts are random.
    """
    edges = _edges(rows)
    if rows.at is not None and len(edges):
        yield from _blocks(rows.at, rows.known, edges)
        return
    generator = np.random.default_rng(_SEED)
    if rows.groups is None:
        part = generator.permutation(len(rows)) % _PARTS
    else:
        part = group_parts(np.unique(rows.groups, return_inverse=True)[1], _PARTS, generator)
    for number in np.unique(part):
        yield np.flatnonzero(part == number), np.flatnonzero(part != number)


def _edges(rows: TrainingSample) -> Index:
    """The times at which blocks after the first begin; none where all rows have one time."""
    if rows.at is None or not len(rows):
        return np.zeros(0, dtype=np.int64)
    ordered = np.sort(rows.at)
    edges = np.unique(ordered[np.arange(1, _BLOCKS) * len(rows) // _BLOCKS])
    return np.asarray(edges[edges > ordered[0]], dtype=np.int64)


def _blocks(at: Index, known: Index | None, edges: Index) -> Iterator[tuple[Index, Index]]:
    latest = at if known is None else np.maximum(at, known)
    block = np.searchsorted(edges, at, side="right")
    yield np.flatnonzero(block == 0), np.zeros(0, dtype=np.int64)
    for number, begin in enumerate(edges.tolist(), start=1):
        yield np.flatnonzero(block == number), np.flatnonzero(latest < begin)

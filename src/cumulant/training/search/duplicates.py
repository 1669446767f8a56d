"""Near copies across a fold: rows that judge and are all but rows that were learned from, label noise included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cumulant.core.servable import Input

if TYPE_CHECKING:
    from cumulant.training.search.cross_validation import CrossValidation
    from cumulant.training.trainers.trainer import TrainingSample

Floats = NDArray[np.float64]

#: rows that are looked at, and rows among which their copies are sought
_LOOKED, _AMONG = 500, 20_000
#: numbers with at least this part of distinct values, at most so many of them; with fewer than two nothing is known
_DISTINCT, _MOST, _LEAST = 0.5, 8, 2
#: the neighbour that a copy is far nearer than, and another to learn the dimension from
_NEAR, _FAR = 30, 60
#: of rows without a copy, the part whose nearest neighbour is as near by chance; nearer than this share is a copy
_CHANCE, _NEAREST = 0.002, 0.3
#: fewer copies, or a smaller part of the rows looked at, do no harm that could be seen
_FEWEST, _PART = 20, 0.01
#: a copy that does not share the noise of the label is a nearer neighbour, and no more: of labels that tell, most of
#: this part speak for it
_HONEST = 2 / 3
_LEVEL = 0.01


class _Copies(NamedTuple):
    """Of rows looked at: whether each has a copy, and whether its label is nearer to the copy's than to another's."""

    looked: int
    copies: int
    #: rows whose label is nearer to that of the copy, and nearer to that of an ordinary neighbour
    nearer: int
    farther: int


def across(folds: CrossValidation, inputs: Sequence[Input], *, timed: bool) -> tuple[str, ...]:
    """A warning where rows that judge have near copies among rows learned from, and share their labels' noise.

    A copy is far nearer than the 30th neighbour, nearer than in 1 of 500 rows by chance, given the dimension of the
    rows. That alone may be honest: callers who come back. So of the rows whose label is nearer to that of one than of
    the other, more than two thirds must be nearer to the copy's: an exact binomial test at 1%.
    """
    from scipy.stats import binom, binomtest

    folds_checked = [
        _copies(*folds.sample(place), inputs, classes=folds.problem.task != "regression", seed=place)
        for place in range(folds.count)
    ]
    looked, copies = sum(fold.looked for fold in folds_checked), sum(fold.copies for fold in folds_checked)
    nearer, farther = sum(fold.nearer for fold in folds_checked), sum(fold.farther for fold in folds_checked)
    if copies < _FEWEST or binom.sf(copies - 1, looked, _PART) > _LEVEL:
        return ()
    if binomtest(nearer, max(nearer + farther, 1), _HONEST, alternative="greater").pvalue > _LEVEL:
        return ()
    remedy = (
        "figures over them hold only where such copies come in use as well; else keep one row of each"
        if timed
        else "figures over them are too good; name the column that they share as `evaluation: {clusters: COLUMN}`, or "
        "keep one row of each"
    )
    text = (
        f"{copies:,} of {looked:,} rows looked at are near copies of rows that were learned from, with labels that go "
        f"together: {remedy}"
    )
    return (text,)


def _copies(
    train: TrainingSample, validate: TrainingSample, inputs: Sequence[Input], *, classes: bool, seed: int
) -> _Copies:
    from scipy.spatial import cKDTree

    generator = np.random.default_rng(seed)
    places = generator.permutation(len(train))[:_AMONG]
    columns = _continuous(train.matrix[places], inputs)
    if len(columns) < _LEAST or len(places) <= _FAR:
        return _Copies(0, 0, 0, 0)
    looked = _balanced(validate.target, classes, generator)
    known, queries = _ranks(train.matrix[places][:, columns], validate.matrix[looked][:, columns])
    queried: tuple[Any, Any] = cKDTree(known).query(queries, k=[1, _NEAR, _FAR])
    distance, neighbour = queried
    usable = (distance[:, 1] > 0) & (distance[:, 2] > distance[:, 1])
    if not usable.any():
        return _Copies(len(looked), 0, 0, 0)
    dimension = np.log(_FAR / _NEAR) / np.log(distance[usable, 2] / distance[usable, 1]).mean()
    nearest = min(_NEAREST, (_CHANCE / _NEAR) ** (1 / max(dimension, 0.5)))
    copied = usable & (distance[:, 0] < nearest * distance[:, 1])
    target = train.target[places]
    own = validate.target[looked][copied]
    gap = [np.abs(own - target[neighbour[copied, side]]) for side in (0, 1)]
    if classes:
        gap = [(side > 0).astype(np.float64) for side in gap]
    return _Copies(len(looked), int(copied.sum()), int((gap[0] < gap[1]).sum()), int((gap[0] > gap[1]).sum()))


def _continuous(matrix: NDArray[np.float32], inputs: Sequence[Input]) -> list[int]:
    """Places of numbers that seldom repeat, those first that repeat least."""
    shares = {
        place: len(np.unique(matrix[:, place][~np.isnan(matrix[:, place])])) / max(len(matrix), 1)
        for place, item in enumerate(inputs)
        if item.kind == "number"
    }
    return sorted((place for place, share in shares.items() if share >= _DISTINCT), key=lambda item: -shares[item])[
        :_MOST
    ]


def _balanced(target: Floats, classes: bool, generator: np.random.Generator) -> NDArray[np.int64]:
    """Positions of at most 500 rows, of each class as many where there are enough."""
    if not classes:
        return generator.permutation(len(target))[:_LOOKED].astype(np.int64)
    values = np.unique(target)
    most = max(1, _LOOKED // len(values))
    return np.concatenate([generator.permutation(np.flatnonzero(target == value))[:most] for value in values])


def _ranks(known: NDArray[np.float32], queries: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Both as shares of the known rows that are lower, column by column; missing as half a rank below all."""
    both_ranks = []
    ordered = np.sort(known, axis=0)  # NaN last
    counts = np.maximum((~np.isnan(known)).sum(axis=0), 1)
    for matrix in (known, queries):
        ranks = np.empty(matrix.shape)
        for column in range(matrix.shape[1]):
            present = ordered[: counts[column], column].astype(np.float64)
            place = np.interp(matrix[:, column].astype(np.float64), present, np.linspace(0, 1, len(present)))
            ranks[:, column] = np.where(np.isnan(matrix[:, column]), -0.5, place)
        both_ranks.append(ranks)
    return both_ranks[0], both_ranks[1]

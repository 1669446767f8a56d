"""Texts with many values: the mean of the target for each value, as numbers beside the commonest values' codes.

The means are learned from training rows only, those of a training row from rows outside its part (`_parts`), and
are made only of texts where they predict the target of rare values beyond noise (`_gains`). Each is pulled towards the
mean of all rows, the more the fewer rows have the value and the less values differ (empirical Bayes). A value that
training did not have gets the mean of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.servable import Input, Task
from cumulant.training.dataset import TrainingSet
from cumulant.training.payloads.encoding import MOST_CATEGORIES, MOST_VALUES, derive_inputs, encode
from cumulant.training.payloads.payload import Floats
from cumulant.training.payloads.widened import MeansTable, Widening
from cumulant.training.policy import TrainingPolicy
from cumulant.training.splits import group_parts
from cumulant.training.trainers.trainer import TrainingSample

Index = NDArray[np.int64]

#: texts with more values than this get means: a trainer distinguishes no more of them
ABOVE = MOST_CATEGORIES
#: of a task of more classes, no means are made
_MOST_CLASSES = 10
#: with times, the gain on this share of the rows, the newest, must be above 0
_NEWEST = 0.2
#: the gain of means must be this many times its standard error. Means of texts without information lose on rows outside
#: the part: 2 in 100 such texts exceed 1. With times more: where effects drift, the past gain overstates the next
_LEAST_GAIN = 1.0
_LEAST_GAIN_TIMED = 2.0
_NAME = ": mean of the target"
#: of the training rows
_PARTS = 5
#: more than parts, since nothing is known in the first block
_BLOCKS = 10
_SEED = 20_161


class TargetMeans:
    """Which of `inputs` get means, and what the rows of one fit say of them."""

    def __init__(self, inputs: Sequence[Input], task: Task, classes: Sequence[str]) -> None:
        self._classes = len(classes) if task == "multiclass" else 0
        self._columns = [place for place, input_ in enumerate(inputs) if len(input_.categories) > ABOVE]
        self._sizes = [len(inputs[place].categories) for place in self._columns]
        self.features = tuple(input_.feature for input_ in inputs)

    def inputs(self, inputs: Sequence[Input]) -> tuple[Input, ...]:
        """The columns of the model's matrix."""
        narrow = [cut(input_) for input_ in inputs]
        names = [""] if not self._classes else [f" {number}" for number in range(self._classes)]
        added = [Input(f"{inputs[place].feature}{_NAME}{name}", "number") for place in self._columns for name in names]
        return (*narrow, *added)

    def fit(self, rows: TrainingSample) -> tuple[TrainingSample, Widening]:
        """The rows as a model is fitted on them, and how other rows are widened.

        No number of a training row depends on a target of its own part: `_parts` says which rows it is learned from.
        """
        whole = self.learn(rows)
        if not self._columns:
            return rows, whole
        wide = np.empty(
            (len(rows), rows.matrix.shape[1] + sum(len(table.means[0]) for table in whole.tables)), np.float32
        )
        for part, learned in _parts(rows):
            others = self.learn(rows.take(learned)) if len(learned) else self._without_values(rows, part)
            wide[part] = others.apply(rows.matrix[part])
        return replace(rows, matrix=wide), whole

    def _without_values(self, rows: TrainingSample, part: NDArray[np.int64]) -> Widening:
        """The mean of the rows outside the part for every value, where no label is known before the part."""
        others = rows.take(np.setdiff1d(np.arange(len(rows)), part))
        return self.learn(replace(others, matrix=np.full_like(others.matrix, np.nan)))

    def learn(self, rows: TrainingSample) -> Widening:
        """The means of all values by these rows."""
        weight = np.ones(len(rows)) if rows.weight is None else rows.weight
        targets = self.targets(rows.target)
        pairs = zip(self._columns, self._sizes, strict=True)
        return Widening(tuple(MeansTable(at, _means(rows.matrix[:, at], size, targets, weight)) for at, size in pairs))

    def apply(self, rows: TrainingSample, widening: Widening) -> TrainingSample:
        """Rows that are not fitted on."""
        if not widening.tables:
            return rows
        unjudged = None if rows.unjudged is None else widening.apply(rows.unjudged)
        return replace(rows, matrix=widening.apply(rows.matrix), unjudged=unjudged)

    def by_feature(self, importance: dict[str, float]) -> dict[str, float]:
        """The importance of each feature: of its columns together, largest first."""
        total: dict[str, float] = {}
        for name, share in importance.items():
            feature = name if name in self.features else name.partition(_NAME)[0]
            total[feature] = total.get(feature, 0.0) + share
        return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))

    def targets(self, target: Floats) -> Floats:
        """[n, numbers]: the target, or of several classes whether it is each."""
        if not self._classes:
            return target[:, None]
        return np.asarray(target[:, None] == np.arange(self._classes), dtype=np.float64)


def cut(input_: Input) -> Input:
    """The input with the values that a trainer distinguishes."""
    return msgspec.structs.replace(input_, categories=input_.categories[:MOST_CATEGORIES])


def inputs_of(
    rows: TrainingSet, spec: TrainingPolicy, *, means: frozenset[str] | None = None
) -> tuple[tuple[Input, ...], TargetMeans]:
    """How each feature enters the servable, and what is made of it for the model.

    means: the texts that get means, as `with_means` gives them of a model; None: those where they gain on these rows.
    """
    most = MOST_VALUES if _few_classes(rows) and spec.target_means == "auto" else MOST_CATEGORIES
    inputs = tuple(
        input_
        if len(input_.categories) <= ABOVE or (_gains(rows, input_) if means is None else input_.feature in means)
        else cut(input_)
        for input_ in derive_inputs(rows.features, most=most)
    )
    return inputs, TargetMeans(inputs, rows.task, rows.classes)


def with_means(inputs: Sequence[Input]) -> frozenset[str]:
    """The features that get means, by the inputs of a model."""
    return frozenset(input_.feature for input_ in inputs if len(input_.categories) > ABOVE)


def means_notes(rows: TrainingSet, inputs: Sequence[Input], spec: TrainingPolicy) -> list[str]:
    """Which texts with many values get no means by `auto`."""
    if spec.target_means == "off" or not _few_classes(rows):
        return []
    return [
        f"{input_.feature} gets no means of the target: they predict its rarer values no better than a constant"
        for input_, wide in zip(inputs, derive_inputs(rows.features, most=ABOVE + 1), strict=True)
        if len(input_.categories) < len(wide.categories)
    ]


def _few_classes(rows: TrainingSet) -> bool:
    return rows.task != "multiclass" or len(rows.classes) <= _MOST_CLASSES


def _gains(rows: TrainingSet, input_: Input) -> bool:
    """Whether the means of rows outside the part predict the target of rare values: those that have no code of their
    own. The squared error is compared with that of a constant, with times on the newer half of the rows, as the folds
    judge; rows of one value, and of one group, count as one observation of the difference.
    """
    whole = TrainingSample.of(rows, encode(rows.features.select(input_.feature), (input_,)))
    rare = whole.take(np.flatnonzero(whole.matrix[:, 0] >= MOST_CATEGORIES))
    means = TargetMeans((input_,), rows.task, rows.classes)
    by_value = means.fit(rare)[0].matrix[:, 1:]
    constant = means.fit(replace(rare, matrix=np.full_like(rare.matrix, np.nan)))[0].matrix[:, 1:]
    target = means.targets(rare.target)
    gain = ((target - constant) ** 2 - (target - by_value) ** 2).sum(axis=1)
    gain *= 1.0 if rare.weight is None else rare.weight
    if rows.at is not None and rare.at is not None:
        gain[rare.at < np.median(rows.at)] = 0.0
        if gain[rare.at >= np.quantile(rows.at, 1 - _NEWEST)].sum() <= 0:
            return False
    clusters: list[NDArray[Any]] = [rare.matrix[:, 0]] if rare.groups is None else [rare.matrix[:, 0], rare.groups]
    least = _LEAST_GAIN if rows.at is None else _LEAST_GAIN_TIMED
    return all(_is_above_noise(gain, each, least) for each in clusters)


def _is_above_noise(gain: Floats, clusters: NDArray[Any], least: float) -> bool:
    codes = np.unique(clusters, return_inverse=True)[1]
    sums = np.bincount(codes, gain)
    if len(sums) < 2:
        return False
    return bool(sums.sum() > least * np.sqrt(len(sums)) * sums.std(ddof=1))


def _means(codes: NDArray[np.float32], size: int, targets: Floats, weight: Floats) -> tuple[tuple[float, ...], ...]:
    known = ~np.isnan(codes)
    at, own = codes[known].astype(np.int64), weight[known]
    counts = _sums(at, own, size)
    columns = []
    for column in targets.T:
        centre = float(np.average(column, weights=weight)) if weight.sum() > 0 else 0.0
        gaps = column[known] - centre
        sums, squares = _sums(at, own * gaps, size), _sums(at, own * gaps**2, size)
        columns.append(centre + np.append(_shrunk(counts, sums, squares), 0.0))
    return tuple(tuple(row) for row in np.stack(columns, axis=1).tolist())


def _sums(at: NDArray[np.int64], amounts: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(at, amounts, size), dtype=np.float64)


def _shrunk(counts: Floats, sums: Floats, squares: Floats) -> Floats:
    """Means of groups, pulled to 0 by the ratio of the variance within groups to that between them."""
    has_rows = counts > 0
    total, groups = float(counts.sum()), int(has_rows.sum())
    if groups < 2 or total <= groups:
        return np.zeros(len(counts))
    raw = np.divide(sums, counts, out=np.zeros(len(counts)), where=has_rows)
    within = max(0.0, float((squares - counts * raw**2).sum())) / (total - groups)
    # the method of moments of an analysis of variance with groups of unequal size
    spread = float((counts * raw**2).sum()) - (groups - 1) * within
    between = spread / (total - float((counts**2).sum()) / total)
    if between <= 0:
        return np.zeros(len(counts))
    return np.divide(sums, counts + within / between, out=np.zeros(len(counts)), where=has_rows)


def _parts(rows: TrainingSample) -> Iterator[tuple[Index, Index]]:
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

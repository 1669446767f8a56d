"""Fewer rows for the search than for the final fit, where the data are large."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.traffic_rows import TrafficRows
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats
from cumulant.training.splits import Fold
from cumulant.training.trainers.trainer import TrainingSample

#: rows that one fit of the search learns from, and that it is judged by
SEARCH_ROWS = 100_000
JUDGE_ROWS = 100_000
#: rows of a fold that are scored only to be counted
COUNT_ROWS = 50_000


def learned(rows: TrainingSet, matrix: Matrix, index: NDArray[np.int64], *, most: int, seed: int) -> TrainingSample:
    """The rows at `index`, at most `most`: of a binary target every row of the rarer class stays (while it is under
    half of `most`), and the others carry weights, so that shares remain what they are.
    """
    whole, target = TrainingSample.of(rows, matrix), rows.target[index]
    if len(index) <= most:
        return whole.take(index)
    generator = np.random.default_rng(seed)
    if rows.task != "binary":
        chosen = np.sort(generator.choice(index, size=most, replace=False))
        return whole.take(chosen)
    rare = target == (1.0 if target.mean() <= 0.5 else 0.0)
    rare_count = min(int(rare.sum()), most // 2)
    few, many = index[rare], index[~rare]
    chosen_few = generator.choice(few, size=rare_count, replace=False)
    chosen_many = generator.choice(many, size=most - rare_count, replace=False)
    chosen = np.concatenate([chosen_few, chosen_many])
    weight = np.concatenate(
        [
            np.full(rare_count, len(few) / max(rare_count, 1)),
            np.full(most - rare_count, len(many) / (most - rare_count)),
        ]
    )
    weight = weight if rows.weight is None else weight * rows.weight[chosen]
    order = np.argsort(chosen, kind="stable")
    return replace(whole.take(chosen[order]), weight=weight[order])


def judged(fold: Fold, *, seed: int, most: int = JUDGE_ROWS) -> NDArray[np.int64]:
    """Positions of the rows a fold is judged by: all, or `most` of them at random, in order."""
    if len(fold.validate) <= most:
        return fold.validate
    return np.sort(np.random.default_rng(seed).choice(fold.validate, size=most, replace=False))


def unjudged(
    rows: TrainingSet, fold: Fold, place: tuple[int, int], *, reviewed: bool, seed: int, most: int = COUNT_ROWS
) -> TrafficRows:
    """The rows of one fold (`place`: its number, of how many) that are scored to be counted: those without a label, and
    those whose label came from the review queue. At random at most `most`, each standing for as many more.

    Where every row has a label there is nothing that the reviewed rows were drawn from. Then a share is one of the
    other rows, and only with `reviewed` are they counted.
    """
    reviewed_rows = TrafficRows(
        features=rows.features[fold.reviewed],
        at=None if rows.at is None else rows.at[fold.reviewed],
        sampling_weight=sampling_weight(rows, fold.reviewed),
    )
    if rows.traffic is None:
        return reviewed_rows if reviewed else reviewed_rows.take(np.zeros(0, dtype=np.int64))
    if fold.span is not None and rows.traffic.at is not None:
        begin, end = fold.span
        other_rows = rows.traffic.take((rows.traffic.at >= begin) & (rows.traffic.at < end))
    else:
        number, count = place
        dealt = np.random.default_rng(seed).integers(count, size=len(rows.traffic))
        other_rows = rows.traffic.take(dealt == number)
    return TrafficRows.joined([other_rows, reviewed_rows]).at_most(most, seed=seed)


def sampling_weight(rows: TrainingSet, index: NDArray[np.int64]) -> Floats:
    """[n] how many rows of the traffic each of the rows at `index` stands for."""
    return np.ones(len(index)) if rows.sampling_weight is None else rows.sampling_weight[index]

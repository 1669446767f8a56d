"""Average precision and ROC AUC, with ties, for many weightings of clusters at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cumulant.statistics.rows import Codes, Flags, Floats, Rows

#: above this many table cells per row, going through the rows is cheaper
_DENSE_CELLS_PER_ROW = 6
#: cells of each product of resamples and levels that are in memory at once
_MOST_CELLS = 1 << 20


def average_precision(truth: Floats, score: Floats) -> float:
    """The mean over positives of the precision at their score, tied scores together; NaN without a positive."""
    return float(Ranking(Rows(truth=truth, prediction=score)).average_precision(np.ones((1, len(truth))))[0])


def roc_auc(truth: Floats, score: Floats) -> float:
    """The probability that a positive scores above a negative, a tie counting half. NaN with one class."""
    return float(Ranking(Rows(truth=truth, prediction=score)).roc_auc(np.ones((1, len(truth))))[0])


class Ranking:
    """Rows sorted once by falling score, then measured under many weightings of their clusters.

    Both metrics need counts only at the scores that hold a positive: of the positives there, of the negatives tied with
    them, and of the negatives above.
    """

    def __init__(self, rows: Rows) -> None:
        code, self._clusters = rows.clusters()
        order = np.argsort(-rows.prediction, kind="stable")
        self._code, self._positive = code[order], rows.truth[order] > 0.5
        self._level, self._tied, self._levels = _levels(rows.prediction[order], self._positive)
        cells = self._levels * self._clusters
        self._tables = self._counts() if cells <= _DENSE_CELLS_PER_ROW * max(len(order), 1) else None

    def average_precision(self, weights: Floats) -> Floats:
        """`weights` [resamples, clusters] to [resamples]."""
        return np.array([_average_precision(*counts) for counts in self._weighted(weights)])

    def roc_auc(self, weights: Floats) -> Floats:
        """`weights` [resamples, clusters] to [resamples]."""
        negatives = weights @ np.bincount(self._code[~self._positive], minlength=self._clusters)
        counted = zip(self._weighted(weights), negatives, strict=True)
        return np.array([_roc_auc(*counts, float(total)) for counts, total in counted])

    def _counts(self) -> tuple[Floats, Floats, Floats]:
        """[levels, clusters]: positives at a level, negatives tied with it, negatives above it."""
        shape = (self._levels + 1, self._clusters)
        cell = self._level * self._clusters + self._code

        def count(chosen: Flags) -> Floats:
            return np.bincount(cell[chosen], minlength=shape[0] * shape[1]).reshape(shape)[:-1].astype(np.float64)

        tied = count(~self._positive & self._tied)
        up_to = np.cumsum(count(~self._positive & ~self._tied) + tied, axis=0)
        return count(self._positive), tied, up_to - tied

    def _weighted(self, weights: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
        """For each resample the counts of every level: positives, tied negatives, negatives above."""
        if self._tables is not None:
            for part in _parts(weights, self._levels):
                positives, ties, aboves = (part @ table.T for table in self._tables)
                yield from zip(positives, ties, aboves, strict=True)
            return
        for row in weights:
            weight = row[self._code]
            negative = np.where(self._positive, 0.0, weight)
            positive = self._summed(np.where(self._positive, weight, 0.0))
            tied = self._summed(np.where(self._tied, negative, 0.0))
            yield positive, tied, np.cumsum(self._summed(negative)) - tied

    def _summed(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self._level, values, self._levels + 1)[:-1], dtype=np.float64)


def _parts(weights: Floats, levels: int) -> Iterator[Floats]:
    """`weights` some resamples at a time, so that the products with the tables take bounded memory."""
    size = max(1, _MOST_CELLS // max(levels, 1)) if bool((weights == np.floor(weights)).all()) else max(len(weights), 1)
    for start in range(0, len(weights), size):
        yield weights[start : start + size]


def _levels(score: Floats, positive: Flags) -> tuple[Codes, Flags, int]:
    """The level (a score held by a positive) of each row by falling `score`, whether it is at one, and how many."""
    if not len(score):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), 0
    group = np.cumsum(np.r_[False, score[1:] != score[:-1]])
    holds = np.bincount(group[positive], minlength=int(group[-1]) + 1) > 0
    before: Codes = np.cumsum(holds) - holds
    return before[group], holds[group], int(holds.sum())


def _average_precision(positive: Floats, tied: Floats, above: Floats) -> float:
    true = np.cumsum(positive)
    if not len(true) or true[-1] <= 0:
        return math.nan
    precision = np.divide(true, true + tied + above, out=np.zeros_like(true), where=true > 0)
    return float(positive @ precision / true[-1])


def _roc_auc(positive: Floats, tied: Floats, above: Floats, negatives: float) -> float:
    pairs = float(positive.sum()) * negatives
    return 1 - float(positive @ (above + tied / 2)) / pairs if pairs > 0 else math.nan

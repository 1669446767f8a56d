"""Metrics that are a function of sums over rows: a resample is then a product with sums per cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cumulant.statistics.rows import Floats, Rows

Finish = Callable[[Floats], Floats]

#: probabilities are kept this far from 0 and 1 in logarithms, so that one sure and wrong row is not infinite
CLIP = 1e-15
BINS = 10


class Sums:
    """Per cluster sums of `columns` ([n] each), and `finish` from weighted sums [resamples, k] to values."""

    def __init__(self, rows: Rows, columns: Sequence[Floats], finish: Finish) -> None:
        code, count = rows.clusters()
        self._table = np.stack([np.bincount(code, column, minlength=count) for column in columns], axis=1)
        self._finish = finish

    def __call__(self, weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._finish(weights @ self._table)


def mean_of(rows: Rows, column: Floats, *, then: Finish | None = None) -> Sums:
    """The mean of `column`, and what `then` makes of it."""

    def finish(sums: Floats) -> Floats:
        value: Floats = sums[:, 0] / sums[:, 1]
        return value if then is None else then(value)

    return Sums(rows, [column.astype(np.float64), np.ones(len(rows))], finish)


def decisions(rows: Rows) -> Floats:
    """[n] 1 where the model decides for the positive class: `decision`, else a probability of at least one half."""
    yes = rows.prediction >= 0.5 if rows.decision is None else rows.decision
    return yes.astype(np.float64)


def log_loss(rows: Rows) -> Sums:
    if rows.prediction.ndim == 2:
        sure = rows.prediction[np.arange(len(rows)), rows.truth.astype(np.int64)]
        return mean_of(rows, -np.log(np.clip(sure, CLIP, 1.0)))
    sure = np.where(rows.truth > 0.5, rows.prediction, 1 - rows.prediction)
    return mean_of(rows, -np.log(np.clip(sure, CLIP, 1.0)))


def brier(rows: Rows) -> Sums:
    """Binary: the mean squared difference of probability and truth. Multi-class: summed over classes."""
    if rows.prediction.ndim == 2:
        hit = np.zeros_like(rows.prediction)
        hit[np.arange(len(rows)), rows.truth.astype(np.int64)] = 1
        return mean_of(rows, ((rows.prediction - hit) ** 2).sum(axis=1))
    return mean_of(rows, (rows.prediction - rows.truth) ** 2)


def calibration_error(rows: Rows) -> Sums:
    """The mean distance of predicted and observed share over ten bins of equal width, weighted by rows.

    Multi-class: of the probability of the likeliest class (Guo et al. 2017, On calibration of modern networks).
    """
    if rows.prediction.ndim == 2:
        sure = rows.prediction.max(axis=1)
        hit = (rows.prediction.argmax(axis=1) == rows.truth).astype(np.float64)
    else:
        sure, hit = rows.prediction, rows.truth
    place = np.clip((sure * BINS).astype(np.int64), 0, BINS - 1)
    gaps = [np.where(place == number, sure - hit, 0.0) for number in range(BINS)]

    def finish(sums: Floats) -> Floats:
        value: Floats = np.abs(sums[:, :BINS]).sum(axis=1) / sums[:, BINS]
        return value

    return Sums(rows, [*gaps, np.ones(len(rows))], finish)


def accuracy(rows: Rows) -> Sums:
    if rows.prediction.ndim == 2:
        return mean_of(rows, rows.prediction.argmax(axis=1) == rows.truth)
    return mean_of(rows, decisions(rows) == rows.truth)


def _confusion(rows: Rows) -> list[Floats]:
    yes, truth = decisions(rows), rows.truth
    return [yes * truth, yes * (1 - truth), (1 - yes) * truth]


def precision(rows: Rows) -> Sums:
    """Of the rows decided yes, the share that is; NaN where none is decided yes."""
    return Sums(rows, _confusion(rows), lambda sums: sums[:, 0] / (sums[:, 0] + sums[:, 1]))


def recall(rows: Rows) -> Sums:
    """Of the positives, the share decided yes; NaN without a positive."""
    return Sums(rows, _confusion(rows), lambda sums: sums[:, 0] / (sums[:, 0] + sums[:, 2]))


def f1(rows: Rows) -> Sums:
    return Sums(rows, _confusion(rows), lambda sums: 2 * sums[:, 0] / (2 * sums[:, 0] + sums[:, 1] + sums[:, 2]))


def macro_f1(rows: Rows) -> Sums:
    """The mean over classes of F1; a class neither true nor predicted counts as 0."""
    classes = rows.prediction.shape[1]
    predicted = rows.prediction.argmax(axis=1)
    columns = []
    for number in range(classes):
        true, yes = rows.truth == number, predicted == number
        columns += [(true & yes).astype(np.float64), true.astype(np.float64) + yes]

    def finish(sums: Floats) -> Floats:
        both, either = sums[:, 0::2], sums[:, 1::2]
        value: Floats = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0).mean(axis=1)
        return value

    return Sums(rows, columns, finish)


def cost(rows: Rows) -> Sums:
    """The mean cost of a row: what its false negative or false positive costs, 0 for a right decision.

    Raises:
        ValueError: the rows carry no costs.
    """
    if rows.cost_false_negative is None or rows.cost_false_positive is None:
        raise ValueError("these rows carry no cost of a wrong decision")
    yes = decisions(rows)
    missed = (1 - yes) * rows.truth * rows.cost_false_negative
    return mean_of(rows, missed + yes * (1 - rows.truth) * rows.cost_false_positive)


def mae(rows: Rows) -> Sums:
    return mean_of(rows, np.abs(rows.prediction - rows.truth))


def rmse(rows: Rows) -> Sums:
    return mean_of(rows, (rows.prediction - rows.truth) ** 2, then=np.sqrt)


def r2(rows: Rows) -> Sums:
    """1 less the squared error over the squared spread of the truth; NaN where the truth does not vary."""
    centre = float(rows.truth.mean()) if len(rows) else 0.0
    truth = rows.truth - centre  # sums of large values would lose the digits of their spread
    columns = [(rows.prediction - rows.truth) ** 2, truth, truth**2, np.ones(len(rows))]

    def finish(sums: Floats) -> Floats:
        spread = sums[:, 2] - sums[:, 1] ** 2 / sums[:, 3]
        return np.where(spread > 0, 1 - sums[:, 0] / spread, np.nan)

    return Sums(rows, columns, finish)


def pinball(rows: Rows, quantile: float = 0.5) -> Sums:
    """The mean quantile loss: `quantile` x shortfall, (1 - `quantile`) x excess."""
    short = rows.truth - rows.prediction
    return mean_of(rows, np.maximum(quantile * short, (quantile - 1) * short))

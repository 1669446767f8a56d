"""Losses of a window as means of blocks: whole clusters, put together until enough rows make a mean near normal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.rows import PredictionRows
from cumulant.statistics.rows import Codes, Floats

Loss = Literal["brier", "squared_error", "log_loss", "zero_one"]
#: probabilities are kept this far from 0 and 1 in a logarithm
_TINY = 1e-6


def loss_of(kind: Loss, truth: Floats, score: Floats) -> Floats:
    """[n] the loss of each score, [n], or of several classes [n, classes].

    Raises:
        DataError: the log loss of scores that are no probabilities.
    """
    if score.ndim == 2:
        return _of_classes(kind, truth.astype(np.int64), score)
    if kind in ("brier", "squared_error"):
        squared: Floats = (truth - score) ** 2
        return squared
    if kind == "zero_one":
        return np.asarray((score >= 0.5) != (truth > 0.5), dtype=np.float64)
    if len(score) and (score.min() < 0 or score.max() > 1):
        raise DataError(
            f"log loss needs probabilities; scores lie between {score.min():g} and {score.max():g}",
            subject="score",
            hint='take "squared_error" for numbers, or calibrate the scores',
        )
    p = np.clip(score, _TINY, 1 - _TINY)
    losses: Floats = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    return losses


def _of_classes(kind: Loss, truth: Codes, score: Floats) -> Floats:
    """The Brier score is the sum over classes, which of two classes is twice that of a binary model."""
    own = score[np.arange(len(truth)), truth]
    if kind == "log_loss":
        losses: Floats = -np.log(np.maximum(own, _TINY))
        return losses
    if kind == "zero_one":
        return np.asarray(score.argmax(axis=1) != truth, dtype=np.float64)
    if kind == "squared_error":
        raise DataError(
            "a squared error is of numbers, and these are classes", subject="loss", hint='take "brier" or "log_loss"'
        )
    brier: Floats = (score**2).sum(axis=1) - 2 * own + 1
    return brier


def base_loss(kind: Loss, truth: Floats, weight: Floats, classes: int | None = None) -> Floats:
    """[n] the unbiased loss of the window's own constant: its base rate, its mean, or the shares of its classes."""
    rows = float(weight.sum()) ** 2 / float((weight**2).sum())
    if classes is not None:
        shares = np.bincount(truth.astype(np.int64), weight, classes) / weight.sum()
        lost = loss_of(kind, truth, np.broadcast_to(shares, (len(truth), classes)))
        return lost * (rows / (rows - 1)) if kind == "brier" and rows > 1 else lost
    rate = float(np.average(truth, weights=weight))
    if kind == "zero_one":
        return np.full(len(truth), min(rate, 1 - rate))
    constant = loss_of(kind, truth, np.full(len(truth), rate))
    if kind != "log_loss" and rows > 1:
        constant = constant * (rows / (rows - 1))
    return constant


def block_codes(rows: PredictionRows, least: int) -> Codes:
    """[n] the block of each row, numbered from 0: whole clusters in order of time until `least` rows are together."""
    if rows.cluster is None:
        count = max(1, len(rows) // least)
        return np.arange(len(rows)) * count // max(len(rows), 1)
    first, place = np.unique(rows.cluster, return_index=True, return_inverse=True)[1:]
    order = np.argsort(first, kind="stable")
    size = np.bincount(place)
    block, number, rows_in_block = np.empty(len(order), dtype=np.int64), 0, 0
    for cluster in order:
        block[cluster] = number
        rows_in_block += size[cluster]
        if rows_in_block >= least:
            number, rows_in_block = number + 1, 0
    if rows_in_block and number:
        block[block == number] = number - 1  # the rest is too small to be a block of its own
    return block[place]


def means_by(block: Codes, weight: Floats) -> Callable[[Floats], Floats]:
    """A function from values [n] to their weighted means [blocks]."""
    total = np.bincount(block, weight)

    def means(values: Floats) -> Floats:
        block_means: Floats = np.bincount(block, values * weight) / total
        return block_means

    return means

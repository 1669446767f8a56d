"""Predictions and outcomes in windows of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.statistics.metric_names import Task
from cumulant.statistics.rows import Codes, Flags, Floats, Rows, cluster_codes

Times = NDArray[np.datetime64]
_MICROSECOND = np.timedelta64(1, "us")
#: probabilities of a row add up to 1 within this: they may have been rounded when they were logged
_SUM = 1e-2
#: how far rounding, as of sums of 32-bit numbers, takes a probability below 0
_ROUNDING = 1e-6


class PredictionWindow(msgspec.Struct, frozen=True, order=True):
    """Predictions from `start` (with) to `end` (without), UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class PredictionRows:
    """n predictions of one model, in any order.

    time: [n] of the prediction, UTC. score: [n] probability of the positive class, or the predicted number; of several
    classes [n, classes] probabilities. truth: [n] 0 or 1, the place of the class or the number; NaN without a label.
    decision: [n] of a classifier; None: at one half. cluster: [n] the unit of dependence (a day, a customer); None:
    each row. label_chance: [n] chance to be labelled; None: labels do not depend on predictions.

    Raises:
        DataError: columns are not of one length, a time or score is missing, a chance is not in (0, 1], or of several
            classes the scores of a row are no probabilities, or a truth is no place of a class.
    """

    time: Times
    score: Floats
    truth: Floats
    decision: Flags | None = None
    cluster: NDArray[Any] | None = None
    label_chance: Floats | None = None

    def __post_init__(self) -> None:
        for name in ("time", "truth", "decision", "cluster", "label_chance"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.score):
                raise DataError(
                    f"{len(self.score)} scores, but {len(column)} values of {name}",
                    subject=name,
                    hint="give one value a prediction, in the same order",
                )
        if np.isnat(self.time).any() or not np.isfinite(self.score).all():
            raise DataError(
                "a prediction has no time or no finite score",
                subject="score",
                hint="leave such rows out and count them",
            )
        if self.several:
            _check_classes(self.score, self.truth)
        chance = self.label_chance
        if chance is not None and not ((chance > 0) & (chance <= 1)).all():
            raise DataError(
                "a chance of being labelled is not above 0 and at most 1",
                subject="label_chance",
                hint="rows that could never be labelled cannot be represented by others: leave them out, and say so",
            )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def several(self) -> bool:
        """Whether there is a probability for each of several classes."""
        return self.score.ndim == 2

    @property
    def labelled(self) -> Flags:
        """[n] whether a label has come."""
        return np.isfinite(self.truth)

    @property
    def decisions(self) -> Flags:
        """[n] the decisions of a classifier."""
        decisions: Flags = self.score >= 0.5 if self.decision is None else self.decision.astype(bool)
        return decisions

    @property
    def weight(self) -> Floats:
        """[n] how many rows each labelled row represents."""
        return np.ones(len(self)) if self.label_chance is None else 1 / self.label_chance

    def where(self, mask: Flags | Codes) -> PredictionRows:
        """The rows of `mask`, or at these places."""
        return PredictionRows(
            time=self.time[mask],
            score=self.score[mask],
            truth=self.truth[mask],
            decision=None if self.decision is None else self.decision[mask],
            cluster=None if self.cluster is None else self.cluster[mask],
            label_chance=None if self.label_chance is None else self.label_chance[mask],
        )

    def rows(self) -> Rows:
        """Scored rows for metrics; call it on labelled predictions."""
        return Rows(
            truth=self.truth,
            prediction=self.score,
            cluster=None if self.cluster is None else cluster_codes(self.cluster),
            decision=None if self.several else self.decisions,
        )


def class_shares(known: PredictionRows) -> Floats:
    """[classes] the share of each class among labelled predictions of several classes."""
    counts = np.bincount(known.truth.astype(np.int64), known.weight, known.score.shape[1])
    shares: Floats = counts / counts.sum()
    return shares


def check_task(predictions: PredictionRows, task: Task) -> None:
    """Raises DataError where the scores are not those of the task."""
    if predictions.several is not (task == "multiclass"):
        raise DataError(
            f"the task is {task}, and a score for each class is {'' if predictions.several else 'not '}there",
            subject="score",
            hint="multiclass needs scores [n, classes], any other task [n]",
        )


def need_one_score(predictions: PredictionRows, what: str) -> None:
    """Raises DataError where there are several classes: `what` is for two, or for numbers."""
    if predictions.several:
        raise DataError(
            f"{what} is for two classes or numbers, and these predictions are of {predictions.score.shape[1]} classes",
            subject="score",
            hint="take `learn_estimators`, or give one class against the rest: its probability, and 0 or 1",
        )


def rounded(score: Floats) -> Floats:
    """`score` with 0 where rounding made a probability negative."""
    scores: Floats = np.where((score < 0) & (score >= -_ROUNDING), 0.0, score)
    return scores


def are_probabilities(score: Floats) -> Flags:
    """[n] whether `score` [n, classes] are the probabilities of all classes; NaN is none."""
    flags: Flags = (score >= 0).all(axis=1) & (np.abs(score.sum(axis=1) - 1) <= _SUM)
    return flags


def _check_classes(score: Floats, truth: Floats) -> None:
    classes = score.shape[1]
    if classes < 2 or not are_probabilities(score).all():
        raise DataError(
            "the scores of a row are not the probabilities of all classes",
            subject="score",
            hint="give one column a class, in the order of the model's classes; each row adds up to 1",
        )
    known = truth[np.isfinite(truth)]
    if not (np.isin(known, np.arange(classes))).all():
        raise DataError(
            f"a truth is no place of {classes} classes",
            subject="truth",
            hint=f"give whole numbers from 0 to {classes - 1}, and NaN where no label has come",
        )


def windows(
    predictions: PredictionRows, every: timedelta, *, origin: datetime | None = None
) -> Iterator[tuple[PredictionWindow, PredictionRows]]:
    """Each window that holds a prediction, oldest first, with its predictions in order of time.

    Windows are `every` long, counted from `origin` (default: the epoch).

    Raises:
        DataError: `every` is not positive.
    """
    if every <= timedelta(0):
        raise DataError(f"windows of {every} have no length", subject="every", hint='give a duration such as "1d"')
    start = datetime(1970, 1, 1, tzinfo=UTC) if origin is None else origin
    width = every // timedelta(microseconds=1)
    micros = (predictions.time.astype("datetime64[us]") - _as_datetime64(start)) // _MICROSECOND
    order = np.argsort(micros, kind="stable")
    number = micros[order] // width
    for place in np.split(np.arange(len(order)), np.flatnonzero(np.diff(number)) + 1):
        if len(place):
            begun = start + timedelta(microseconds=int(number[place[0]]) * width)
            yield PredictionWindow(begun, begun + every), predictions.where(order[place])


def is_ripe(window: PredictionWindow, *, now: datetime, label_delay: timedelta) -> bool:
    """Whether every label of the window has had its time: those that came early are not like the others."""
    return window.end + label_delay <= now


def _as_datetime64(when: datetime) -> np.datetime64:
    return np.datetime64(when.astimezone(UTC).replace(tzinfo=None), "us")

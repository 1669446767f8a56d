"""Predictions and what became of them, cut into windows of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError
from cumulant.statistics.rows import Codes, Flags, Floats, Rows, cluster_codes

Times = NDArray[np.datetime64]
_MICROSECOND = np.timedelta64(1, "us")


class Window(msgspec.Struct, frozen=True, order=True):
    """Predictions from `start` (with) to `end` (without), UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """n predictions of one model, in whatever order.

    time: [n] of the prediction, UTC. score: [n] probability of the positive class, or the predicted number.
    truth: [n] 0 or 1 or the number; NaN where no label has come. decision: [n] whether a classifier said yes; None: at
    one half. cluster: [n] what rows depend on together (a day, a customer); None: each row alone. label_chance: [n]
    the chance with which a row was chosen to be labelled; None: labels come by themselves, whatever was predicted.

    Raises:
        DataError: columns are not of one length, a time or score is missing, or a chance is not in (0, 1].
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
        chance = self.label_chance
        if chance is not None and not ((chance > 0) & (chance <= 1)).all():
            raise DataError(
                "a chance of being labelled is not above 0 and at most 1",
                subject="label_chance",
                hint="rows that could never be labelled cannot be stood for by others: leave them out, and say so",
            )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def labelled(self) -> Flags:
        """[n] whether a label has come."""
        return np.isfinite(self.truth)

    @property
    def said_yes(self) -> Flags:
        """[n] the decisions of a classifier."""
        found: Flags = self.score >= 0.5 if self.decision is None else self.decision.astype(bool)
        return found

    @property
    def weight(self) -> Floats:
        """[n] how many rows each labelled row stands for."""
        return np.ones(len(self)) if self.label_chance is None else 1 / self.label_chance

    def where(self, mask: Flags | Codes) -> Predictions:
        """The rows of `mask`, or at these places."""
        return Predictions(
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
            decision=self.said_yes,
        )


def windows(
    predictions: Predictions, every: timedelta, *, origin: datetime | None = None
) -> Iterator[tuple[Window, Predictions]]:
    """Each window that holds a prediction, oldest first, with its predictions in order of time.

    Windows are `every` long, counted from `origin` (the epoch, so that days and hours begin at whole ones).

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
            yield Window(begun, begun + every), predictions.where(order[place])


def is_ripe(window: Window, *, now: datetime, label_delay: timedelta) -> bool:
    """Whether every label of the window has had its time: those that came early are not like the others."""
    return window.end + label_delay <= now


def _as_datetime64(when: datetime) -> np.datetime64:
    return np.datetime64(when.astimezone(UTC).replace(tzinfo=None), "us")

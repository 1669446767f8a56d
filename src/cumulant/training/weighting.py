"""Newer rows weigh more: weights that halve with a row's age."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np

from cumulant.core.errors import DataError, UsageError
from cumulant.core.units import micros, show_duration
from cumulant.training.dataset import Floats, Micros, TrainingSet
from cumulant.training.policy import TrainingPolicy

#: half-lives beyond which rows weigh the same: trainers hold weights in 32 bits, where smaller ones are 0
_MOST_AGES = 100.0
#: rows of equal weight that the weights must be worth
_LEAST_ROWS = 10


def aged(at: Micros, half_life: timedelta) -> Floats:
    """[n] weights of rows of these moments: a row older by `half_life` than another weighs half as much.

    Their mean is 1, so that penalties of a trainer, which are held against the sum of the weights, stay what they were.

    Raises:
        UsageError: `half_life` is not above 0.
    """
    if half_life <= timedelta(0):
        raise UsageError(f"a half-life of {half_life} weighs nothing", subject="half_life", hint="write 90d")
    if not len(at):
        return np.ones(0)
    ages = (int(at.max()) - at) / micros(half_life)
    weight: Floats = np.exp2(-np.minimum(ages, _MOST_AGES))
    scaled: Floats = weight / weight.mean()
    return scaled


def weighted(rows: TrainingSet, spec: TrainingPolicy) -> TrainingSet:
    """`rows` as `training.half_life` weighs them, times the weights that they have; unchanged without one.

    Raises:
        DataError: the rows have no moment of prediction.
        UsageError: the half-life is 0, or so short that next to no row counts.
    """
    if spec.half_life is None:
        return rows
    if rows.at is None:
        raise DataError(
            "training.half_life needs the moment of each row, and the source has no event time",
            subject="training.half_life",
            hint="declare event_time for the source, or leave half_life out",
        )
    weight = aged(rows.at, spec.half_life)
    _check_enough(weight, spec.half_life)
    return replace(rows, weight=weight if rows.weight is None else weight * rows.weight)


def _check_enough(weight: Floats, half_life: timedelta) -> None:
    worth = float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0
    if worth < _LEAST_ROWS:
        raise UsageError(
            f"a half-life of {show_duration(half_life)} leaves {len(weight):,} training rows the weight of {worth:.0f}",
            subject="training.half_life",
            hint="write a longer one, such as 90d",
        )

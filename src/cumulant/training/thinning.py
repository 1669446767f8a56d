"""Rows that are a part of all there are: what each stands for, and notes on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cumulant.training.dataset import Floats, TrainingSet
from cumulant.training.evaluation.traffic_rows import TrafficRows

#: of a class with fewer rows, figures of the test are a guess: a fifth of them makes an interval of ten points each way
_FEW = 500


def thinned(rows: TrainingSet, chosen: int, of: int) -> TrainingSet:
    """`rows`, of `chosen` ones that stand for all `of`: learned from as they are, and counted as so many more where a
    capacity counts the traffic. A class that has few rows by it is named in a warning.
    """
    factor = of / chosen
    note = (
        f"training.rows: trained and tested on {chosen:,} of {of:,} rows of the source, those with the smallest hash of"
        " their key"
    )
    traffic = rows.traffic
    return replace(
        rows,
        sampling_weight=_times(rows.sampling_weight, len(rows), factor),
        traffic=None if traffic is None else _stretched(traffic, factor),
        notes=(*rows.notes, note),
        warnings=(*rows.warnings, *_few(rows, factor)),
    )


def _stretched(traffic: TrafficRows, factor: float) -> TrafficRows:
    return replace(traffic, sampling_weight=traffic.sampling_weight * factor)


def _times(weight: Floats | None, count: int, factor: float) -> Floats:
    return np.full(count, factor) if weight is None else weight * factor


def _few(rows: TrainingSet, factor: float) -> tuple[str, ...]:
    if not rows.classes:
        return ()
    counts = np.bincount(rows.target.astype(np.int64), minlength=len(rows.classes))
    return tuple(
        f'training.rows leaves {count:,} rows of the class "{text}", of about {round(count * factor):,}: figures of it '
        "are unsure; write a larger number"
        for text, count in zip(rows.classes, counts, strict=False)
        if count < _FEW
    )

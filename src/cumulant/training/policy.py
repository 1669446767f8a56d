"""How a model is trained and evaluated, as numbers: made once of the project's sections by `project.training_section`.

`timedelta` for spans of time and time limits, `datetime` in UTC for moments; shares are fractions from 0 to 1.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from cumulant.core.units import Rate
from cumulant.training.spec import DEFAULT_TRAINERS, DecisionCost, GateRule, Parameter

#: cores that a training uses by itself
_MOST_THREADS = 8


class ThresholdPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows a binary model may call positive; exactly one of `alerts` and `rate`."""

    #: a number an hour, a day or a week
    alerts: Rate | None = None
    #: share of the rows
    rate: float | None = None
    #: of `alerts`: the part of the traffic that the source holds
    source_share: float | None = None


class TrainingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is learned from which rows, and how long the search for a model may take; as `TrainingSpec` says it."""

    target: str
    source: str | None = None
    predict_at: str | None = None
    since: datetime | None = None
    rows: int | None = None
    half_life: timedelta | None = None
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto"
    metric: str = "auto"
    cost: DecisionCost | None = None
    threshold: ThresholdPolicy | float | None = None
    trainers: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_TRAINERS))
    parameters: dict[str, dict[str, Parameter]] = {}
    trials: int = 30
    #: of search and final fit together; None: no limit
    time: timedelta | None = timedelta(seconds=60)
    folds: int = 4
    ensemble: int = 3
    blend: Literal["auto", "off"] = "auto"
    final_fit: Literal["train", "all"] = "train"
    seed: int = 0
    jobs: int = 1
    #: None: the cores there are, at most 8
    threads: int | None = None
    target_means: Literal["auto", "off"] = "auto"
    calibration: Literal["auto", "none", "sigmoid"] = "auto"
    allow: list[str] = []
    leak_auc: float = 0.95

    @property
    def cores(self) -> int:
        """How many fits run at the same time."""
        return self.threads or min(os.cpu_count() or 1, _MOST_THREADS)


class EvaluationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a trained model is evaluated on rows that it never saw.

    test: the last part by time, as a span or as a share of the rows.
    """

    test: timedelta | float = 0.2
    clusters: str = "auto"
    slices: list[str] = []
    reuse: Literal["widen", "report"] = "widen"
    gate: dict[str, GateRule] = {}

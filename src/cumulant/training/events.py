"""What training reports."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from cumulant.core.events import Fact
from cumulant.training.spec import Parameter


class TrialFinished(Fact, frozen=True, kw_only=True):
    """One set of parameters was tried, as its record says (`records.TrialRecord`); `scores` are those of its folds."""

    kind: ClassVar[str] = "training.trial_finished"
    number: int
    trainer: str
    state: str
    score: float | None
    seconds: float
    scores: tuple[float, ...] = ()
    params: dict[str, Parameter] = msgspec.field(default_factory=dict)


class FoldFinished(Fact, frozen=True, kw_only=True):
    """A fold of a trial under way was judged, and others follow: the `scores` so far, of `folds`, after `seconds`."""

    kind: ClassVar[str] = "training.fold_finished"
    number: int
    trainer: str
    scores: tuple[float, ...]
    folds: int
    seconds: float
    params: dict[str, Parameter] = msgspec.field(default_factory=dict)


class SearchFinished(Fact, frozen=True, kw_only=True):
    """The search ended: what was chosen, on how many rows and folds, and how it scored out of fold."""

    kind: ClassVar[str] = "training.search_finished"
    trainer: str
    metric: str
    score: float
    naive_score: float
    trials: int
    folds: int
    rows: int
    seconds: float


class ModelEvaluated(Fact, frozen=True, kw_only=True):
    """A model was measured on rows that it never saw."""

    kind: ClassVar[str] = "training.model_evaluated"
    model: str
    rows: int
    metrics: dict[str, float]


class GateDecided(Fact, frozen=True, kw_only=True):
    """The gate accepted or refused a candidate; `words` is the verdict word of each rule."""

    kind: ClassVar[str] = "training.gate_decided"
    passed: bool
    word: str
    words: dict[str, str]
    reason: str

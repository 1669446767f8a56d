"""Several classes without labels: each class against the rest as a binary question, and the most probable one.

The Brier score and the log loss are sums over classes (`statistics.performance.classes`). The accuracy is how often the
most probable class is right. Calibrations are not applied to rows that they may not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from cumulant.core.errors import DataError
from cumulant.monitoring.performance.kinds import Kind
from cumulant.monitoring.performance.rows import PredictionRows, check_task, windows
from cumulant.monitoring.performance.unlabelled import (
    EstimatedFigure,
    EstimatedWindow,
    Estimator,
    bonferroni_factor,
    decide_word,
    estimate_windows,
    learn_estimator,
)
from cumulant.statistics import Estimate, Rows, cluster_codes
from cumulant.statistics.performance.calibration import calibration_error
from cumulant.statistics.performance.classes import carry_refusal, expected_log_loss, sum_refusal

_FIGURE, _ACCURACY, _LOG_LOSS = "brier", "accuracy", "log_loss"
_Ends = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ClassEstimators:
    """Estimators of each class, in order, and of the most probable one of each row.

    off: the expected calibration error of each class's scores. log_loss: of the reference, with its interval. refused:
    why there is no estimate at all.
    """

    names: tuple[str, ...]
    each: tuple[Estimator, ...]
    first: Estimator
    off: tuple[Estimate, ...]
    log_loss: _Ends
    refused: str | None

    @property
    def spread(self) -> float:
        """How much wider than chance windows of the reference varied, at most over classes."""
        return max(estimator.spread for estimator in self.each)

    @property
    def before(self) -> dict[str, float]:
        """What the reference showed of each metric; without an accuracy where that is not estimated."""
        accuracy = {} if self.first.refused else {_ACCURACY: self.first.before[_ACCURACY][1]}
        return {
            _FIGURE: sum(estimator.before[_FIGURE][1] for estimator in self.each),
            _LOG_LOSS: self.log_loss[1],
            **accuracy,
        }


def learn_estimators(
    reference: PredictionRows, *, names: Sequence[str], every: timedelta, seed: int = 0
) -> ClassEstimators:
    """As `learn_estimator`, of several classes that are called `names`.

    Raises:
        DataError: there are no scores of several classes, or not one a name.
    """
    check_task(reference, "multiclass")
    if reference.score.shape[1] != len(names):
        raise DataError(f"{len(names)} names for {reference.score.shape[1]} classes", subject="names")
    each = tuple(learn_estimator(_against(reference, place), every=every, seed=seed) for place in range(len(names)))
    refusals = (
        f'of "{name}" against the rest {estimator.refused}'
        for name, estimator in zip(names, each, strict=True)
        if estimator.refused
    )
    known = reference.where(reference.labelled)
    estimators = ClassEstimators(
        names=tuple(names),
        each=each,
        first=learn_estimator(_first(reference), every=every, seed=seed),
        off=tuple(_off(_against(known, place), seed) for place in range(len(names))),
        log_loss=(0.0, 0.0, 0.0),
        refused=next(refusals, None),
    )
    return estimators if estimators.refused else replace(estimators, log_loss=_log_loss(estimators, known, seed))


def _off(rows: PredictionRows, seed: int) -> Estimate:
    """The expected calibration error of the scores as they are."""
    cluster = None if rows.cluster is None else cluster_codes(rows.cluster)
    return calibration_error(Rows(truth=rows.truth, prediction=rows.score, cluster=cluster), seed=seed)


def _log_loss(estimators: ClassEstimators, part: PredictionRows, seed: int) -> _Ends:
    each = estimators.each
    maps = [estimator.maps for estimator in each]
    return expected_log_loss(
        [estimator.calibrator for estimator in each], maps, part.score, spread=estimators.spread, seed=seed
    )


def estimate_class_windows(
    estimators: ClassEstimators,
    predictions: PredictionRows,
    *,
    every: timedelta,
    kind: Kind | None = None,
    margin: float = 0.05,
    horizon: int = 30,
    alpha: float = 0.05,
    seed: int = 0,
) -> tuple[EstimatedWindow, ...]:
    """The Brier score, log loss and, after enough wrong rows, accuracy of each window without labels, oldest first.

    The Brier score's interval is the sum of those of the classes, so rather too wide. Arguments as `estimate_windows`.

    Raises:
        DataError: `every` is not positive, or the scores are not those of the classes.
    """
    check_task(predictions, "multiclass")
    if predictions.score.shape[1] != len(estimators.each):
        raise DataError(
            f"scores of {predictions.score.shape[1]} classes, and the reference has {len(estimators.each)}",
            subject="score",
        )
    by_class = [
        estimate_windows(estimate, _against(predictions, place), every=every, kind=kind, seed=seed)
        for place, estimate in enumerate(estimators.each)
    ]
    wider = bonferroni_factor(horizon, alpha)
    parts = [part for _, part in windows(predictions, every)]
    scores = [
        _with_log_loss(estimators, _together(estimators, window, margin, wider), part, (margin, wider), seed)
        for window, part in zip(zip(*by_class, strict=True), parts, strict=True)
    ]
    first = estimate_windows(
        estimators.first,
        _first(predictions),
        every=every,
        kind=kind,
        margin=margin,
        horizon=horizon,
        alpha=alpha,
        seed=seed,
    )
    return tuple(_with_accuracy(score, estimate) for score, estimate in zip(scores, first, strict=True))


def _first(predictions: PredictionRows) -> PredictionRows:
    """Whether the most probable class of each row is right, with its probability as the score."""
    best = predictions.score.argmax(axis=1)
    truth = np.where(predictions.labelled, (predictions.truth == best).astype(np.float64), np.nan)
    yes = np.ones(len(predictions), dtype=np.bool_)
    return replace(predictions, score=predictions.score.max(axis=1), truth=truth, decision=yes)


def _with_log_loss(
    estimators: ClassEstimators, score: EstimatedWindow, part: PredictionRows, terms: tuple[float, float], seed: int
) -> EstimatedWindow:
    """The window with its log loss, or without any figure where the calibration does not carry to its rows."""
    if score.refused is not None or not score.figures:
        return score
    refused = _carries(estimators, part)
    if refused is not None:
        return EstimatedWindow(window=score.window, rows=score.rows, figures={}, refused=refused)
    now = _log_loss(estimators, part, seed)
    figure = EstimatedFigure(
        low=now[0], value=now[1], high=now[2], word=decide_word(_LOG_LOSS, now, estimators.log_loss, *terms)
    )
    return EstimatedWindow(
        window=score.window, rows=score.rows, figures={**score.figures, _LOG_LOSS: figure}, refused=None
    )


def _carries(estimators: ClassEstimators, part: PredictionRows) -> str | None:
    """Why what calibrates the scores may not hold for these rows."""
    each = estimators.each
    for place, (name, estimator, off) in enumerate(zip(estimators.names, each, estimators.off, strict=True)):
        refused = carry_refusal(estimator.calibrator, off, part.score[:, place])
        if refused is not None:
            return f'of "{name}" against the rest {refused}'
    return sum_refusal([estimator.calibrator for estimator in each], [estimator.maps for estimator in each], part.score)


def _with_accuracy(score: EstimatedWindow, first: EstimatedWindow) -> EstimatedWindow:
    accuracy = first.figures.get(_ACCURACY)
    if score.refused is not None or accuracy is None:
        return score
    return EstimatedWindow(
        window=score.window, rows=score.rows, figures={**score.figures, _ACCURACY: accuracy}, refused=None
    )


def _against(predictions: PredictionRows, place: int) -> PredictionRows:
    """One class against the rest."""
    truth = np.where(predictions.labelled, predictions.truth == place, np.nan)
    return replace(predictions, score=predictions.score[:, place], truth=truth, decision=None)


def _together(
    estimators: ClassEstimators, classes: Sequence[EstimatedWindow], margin: float, wider: float
) -> EstimatedWindow:
    first = classes[0]
    refused = estimators.refused or next((part.refused for part in classes if part.refused), None)
    figures = [part.figures[_FIGURE] for part in classes if _FIGURE in part.figures]
    if refused is not None or len(figures) < len(classes):
        return EstimatedWindow(window=first.window, rows=first.rows, figures={}, refused=refused)
    now = _sum([(part.low, part.value, part.high) for part in figures])
    before = _sum([part.before[_FIGURE] for part in estimators.each])
    figure = EstimatedFigure(
        low=now[0], value=now[1], high=now[2], word=decide_word(_FIGURE, now, before, margin, wider)
    )
    return EstimatedWindow(window=first.window, rows=first.rows, figures={_FIGURE: figure}, refused=None)


def _sum(ends: Sequence[_Ends]) -> _Ends:
    low, value, high = np.sum(np.asarray(ends), axis=0)
    return float(low), float(value), float(high)

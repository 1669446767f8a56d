"""Quality without labels: a classifier's metrics by its calibrated scores, or why there are none.

It cannot detect a change of the truth given the scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import numpy as np

from cumulant.monitoring.performance.kinds import Kind
from cumulant.monitoring.performance.labelled import MeasuredWindow
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow, need_one_score, windows
from cumulant.statistics import Estimate, Rows, Word, cluster_codes, verdict
from cumulant.statistics.performance.assumptions import blind, calibration_refusal, reference_refusal, window_refusal
from cumulant.statistics.performance.audit import Audit, audit
from cumulant.statistics.performance.calibration import Calibrator, calibration_error, cross_fitted
from cumulant.statistics.performance.confidence import FIGURES, expected, expected_intervals
from cumulant.statistics.rows import Floats

#: figures of which a smaller value is better
_LOSSES = frozenset({"log_loss", "brier", "mae", "mse", "rmse"})
_LEVEL = 0.95
#: parts of the reference, in order of time, that are calibrated by the others
_FOLDS = 5
#: maps and labels that an interval is drawn from
_DRAWS = 300
#: fewer windows of the reference do not show whether rows of a window depend on each other
_LEAST_WINDOWS = 8


class EstimatedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """An estimated metric with 95% interval; `word`: against the reference, corrected for `horizon` windows."""

    value: float
    low: float
    high: float
    word: Word


class EstimatedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The estimates of one window, or why there are none."""

    window: PredictionWindow
    rows: int
    figures: dict[str, EstimatedFigure]
    refused: str | None


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """An estimator learned from the reference. `refused`: why there is no estimate at all.

    calibrator: from scores to probabilities. maps: calibrators of resampled rows. before: each figure of the reference
    with its interval. error: expected calibration error on held-out rows. spread: variation of the reference's windows
    over chance, 1 or more.
    """

    calibrator: Calibrator
    maps: tuple[Calibrator, ...]
    before: Mapping[str, tuple[float, float, float]]
    error: Estimate | None
    spread: float
    refused: str | None


def learn_estimator(reference: PredictionRows, *, every: timedelta, calibrate: bool = True, seed: int = 0) -> Estimator:
    """An estimator from labelled predictions of a time when the model was good, best on rows not trained on.

    Args:
        reference: labelled predictions; `label_chance` is not used.
        every: length of the windows that will be estimated.
        calibrate: learn a calibration; False: take the scores as probabilities, and refuse where they are none.
        seed: of the intervals.

    Raises:
        DataError: there are several classes.
    """
    need_one_score(reference, "an estimate without labels")
    known = reference.where(reference.labelled)
    known = known.where(np.argsort(known.time, kind="stable"))
    refused = reference_refusal(known.truth, known.score)
    if refused is not None:
        return Estimator(calibrator=_identity(known.score), maps=(), before={}, error=None, spread=1.0, refused=refused)
    calibrator = Calibrator.fit(known.truth, known.score) if calibrate else _identity(known.score)
    fold = np.arange(len(known)) * _FOLDS // len(known)
    probability = cross_fitted(known.truth, known.score, fold) if calibrate else known.score
    error = calibration_error(
        Rows(
            truth=known.truth,
            prediction=probability,
            cluster=None if known.cluster is None else cluster_codes(known.cluster),
        ),
        seed=seed,
    )
    spread = _spread(known, probability, every)
    maps = calibrator.drawn(seed=seed) if calibrate else (calibrator,) * _DRAWS
    return Estimator(
        calibrator=calibrator,
        maps=maps,
        before=_figures(calibrator, maps, known, spread, seed),
        error=error,
        spread=spread,
        refused=calibration_refusal(error),
    )


def estimate_windows(
    estimator: Estimator,
    predictions: PredictionRows,
    *,
    every: timedelta,
    kind: Kind | None = None,
    margin: float = 0.05,
    horizon: int = 30,
    alpha: float = 0.05,
    seed: int = 0,
) -> tuple[EstimatedWindow, ...]:
    """Each window's metrics, oldest first, without labels.

    Args:
        estimator: of the reference.
        predictions: scores to estimate.
        every: length of a window.
        kind: of the latest change by labels; under `concept` and `prior` estimates are refused.
        margin: part of the reference's loss (of 1 less a score such as accuracy) that is accepted.
        horizon: windows over which `alpha` is the chance of any wrong word of one figure (Bonferroni).
        alpha: see `horizon`.
        seed: of the intervals.

    Raises:
        DataError: `every` is not positive, or there are several classes.
    """
    need_one_score(predictions, "an estimate without labels")
    wider = bonferroni_factor(horizon, alpha)
    windows_estimated = []
    for window, part in windows(predictions, every):
        refused = estimator.refused or blind(kind) or window_refusal(part.score, estimator.calibrator)
        figures = {}
        if refused is None:
            for name, ends in _figures(estimator.calibrator, estimator.maps, part, estimator.spread, seed).items():
                if math.isfinite(ends[0]) and math.isfinite(ends[1]):
                    word = decide_word(name, ends, estimator.before[name], margin, wider)
                    figures[name] = EstimatedFigure(value=ends[1], low=ends[0], high=ends[2], word=word)
        windows_estimated.append(EstimatedWindow(window=window, rows=len(part), figures=figures, refused=refused))
    return tuple(windows_estimated)


def audited(
    estimator: Estimator, estimates: Sequence[EstimatedWindow], truths: Sequence[MeasuredWindow]
) -> dict[str, Audit]:
    """Of each figure how its estimates did in the windows for which the truth has come; empty where there is none."""
    measured = {window.window: window.figures for window in truths}
    pairs: dict[str, list[tuple[tuple[float, float, float], float]]] = {}
    for window in estimates:
        for name, estimate in window.figures.items():
            truth = measured.get(window.window, {}).get(name)
            if truth is not None and truth.value is not None:
                pairs.setdefault(name, []).append(((estimate.low, estimate.value, estimate.high), truth.value))
    return {
        name: audit(
            [estimate for estimate, _ in pairs_of_figure],
            [truth for _, truth in pairs_of_figure],
            before=estimator.before[name][1],
        )
        for name, pairs_of_figure in pairs.items()
    }


def bonferroni_factor(horizon: int, alpha: float) -> float:
    """Width of an interval that holds over `horizon` looks at once (Bonferroni), over that of 95%."""
    from scipy.special import ndtri  # scipy.stats takes a second to import, and a look needs nothing else of it

    return float(ndtri(1 - alpha / (2 * horizon)) / ndtri((1 + _LEVEL) / 2))


def decide_word(
    name: str, now: tuple[float, float, float], before: tuple[float, float, float], margin: float, wider: float
) -> Word:
    """The word for a figure `now` (low, value, high) against `before`, by their joint half width, made `wider`."""
    sign = -1.0 if name in _LOSSES else 1.0
    change = sign * (now[1] - before[1])
    up, down = (now[2] - now[1], before[1] - before[0]), (now[1] - now[0], before[2] - before[1])
    if sign < 0:
        up, down = down, up
    loss = before[1] if name in _LOSSES else 1 - before[1]
    return verdict(change - wider * math.hypot(*down), change + wider * math.hypot(*up), margin=margin * max(loss, 0.0))


def _identity(score: Floats) -> Calibrator:
    points, rows = np.unique(score, return_counts=True)
    return Calibrator(points, np.clip(points, 0, 1), rows.astype(np.float64))


def _figures(
    calibrator: Calibrator, maps: tuple[Calibrator, ...], part: PredictionRows, spread: float, seed: int
) -> dict[str, tuple[float, float, float]]:
    values = expected(calibrator(part.score), part.score, part.decisions)
    ends = expected_intervals(calibrator, maps, part.score, part.decisions, middle=values, spread=spread, seed=seed)
    return {name: (ends[name][0], values[name], ends[name][1]) for name in FIGURES}


def _spread(known: PredictionRows, probability: Floats, every: timedelta) -> float:
    """How many times wider than chance the positives of a window miss what was expected, where that is sure."""
    from scipy.stats import chi2

    rest = PredictionRows(time=known.time, score=probability, truth=known.truth)
    misses = []
    for _, part in windows(rest, every):
        variance = float((part.score * (1 - part.score)).sum())
        if variance > 0:
            misses.append(float((part.truth - part.score).sum()) ** 2 / variance)
    total, n = sum(misses), len(misses)
    return math.sqrt(total / n) if n >= _LEAST_WINDOWS and total > chi2.ppf(0.9, n) else 1.0

"""Quality with labels: the metrics of training, window by window, with intervals that hold what depends together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np

from cumulant.monitoring.performance.rows import (
    PredictionRows,
    PredictionWindow,
    check_task,
    class_shares,
    is_ripe,
    windows,
)
from cumulant.statistics import Estimate, Metric, estimate, metric, metrics_for
from cumulant.statistics.metric_names import Task
from cumulant.statistics.performance.weighted import weighted_estimate

#: a window in which less is labelled is not measured, unless it is known by what chance rows were
LEAST_SHARE = 0.8
#: fewer labels give no metric
LEAST_LABELS = 30
#: labelled rows whose mean score is this many deviations from all rows' are reported as a selection
_SELECTED = 0.1


class WindowMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of one window; the interval is missing where too few clusters are behind it."""

    value: float | None
    low: float | None
    high: float | None
    clusters: int


class MeasuredWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one window by its labels. `refused`: why there are none; `notes`: their limits.

    `base`: the mean truth; of several classes the share of the most frequent one.
    """

    window: PredictionWindow
    rows: int
    labelled: int
    ripe: bool
    weighted: bool
    base: float | None
    figures: dict[str, WindowMetric]
    refused: str | None
    notes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the predictions, how many have a label."""
        return self.labelled / self.rows


def measured(
    predictions: PredictionRows,
    *,
    task: Task,
    every: timedelta,
    now: datetime,
    label_delay: timedelta = timedelta(0),
    metrics: Sequence[str] | None = None,
    least_share: float = LEAST_SHARE,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[MeasuredWindow, ...]:
    """Metrics of each window whose last label has had `label_delay`, oldest first, with intervals over clusters.

    Where rows were chosen to be labelled, each represents 1 / `label_chance` rows.

    Args:
        predictions: with the labels that have come.
        task: of the model.
        every: length of a window.
        now: later windows are not measured.
        label_delay: how long a label may take.
        metrics: names as in training; None: all of `task`.
        least_share: of a window's rows that need a label, where no chance of labelling is known.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        KeyError: there is no metric of that name.
        DataError: `every` is not positive, or the scores are not those of the task.
    """
    check_task(predictions, task)
    wanted = metrics_for(task) if metrics is None else tuple(metric(name) for name in metrics)
    return tuple(
        _measured(
            window,
            part,
            ripe=is_ripe(window, now=now, label_delay=label_delay),
            least_share=least_share,
            figures=lambda known: {
                wanted_metric.name: _figure(wanted_metric, known, resamples, seed) for wanted_metric in wanted
            },
        )
        for window, part in windows(predictions, every)
    )


def _measured(
    window: PredictionWindow,
    part: PredictionRows,
    *,
    ripe: bool,
    least_share: float,
    figures: Callable[[PredictionRows], dict[str, WindowMetric]],
) -> MeasuredWindow:
    known = part.where(part.labelled)
    refused = _refused(part, known, ripe, least_share)
    return MeasuredWindow(
        window=window,
        rows=len(part),
        labelled=len(known),
        ripe=ripe,
        weighted=part.label_chance is not None,
        base=None if refused else _base(known),
        figures={} if refused else figures(known),
        refused=refused,
        notes=() if refused else _notes(part, known),
    )


def _base(known: PredictionRows) -> float:
    return float(class_shares(known).max() if known.several else np.average(known.truth, weights=known.weight))


def _figure(wanted: Metric, known: PredictionRows, resamples: int, seed: int) -> WindowMetric:
    if known.label_chance is None:
        return figure(estimate(wanted, known.rows(), resamples=resamples, seed=seed))
    return figure(weighted_estimate(wanted, known.rows(), known.weight, resamples=resamples, seed=seed))


def figure(estimate: Estimate) -> WindowMetric:
    """An estimate as it is reported and stored."""
    return WindowMetric(value=estimate.value, low=estimate.low, high=estimate.high, clusters=estimate.clusters)


def _refused(part: PredictionRows, known: PredictionRows, ripe: bool, least_share: float) -> str | None:
    if not ripe:
        return "labels of this window may still come; it is measured when the label delay has passed since its end"
    if len(known) < LEAST_LABELS:
        return f"{len(known)} of {len(part)} predictions have a label; {LEAST_LABELS} are needed"
    if part.label_chance is None and len(known) < least_share * len(part):
        return (
            f"{len(known) / len(part):.0%} of the predictions have a label and {least_share:.0%} are needed: "
            "which rows are labelled may depend on what was predicted. "
            "Where rows were sampled, give each one's chance to be labelled"
        )
    return None


def _notes(part: PredictionRows, known: PredictionRows) -> tuple[str, ...]:
    notes = []
    # Of several classes the highest probability represents the row.
    score, labelled = ((rows.score.max(axis=1) if rows.several else rows.score) for rows in (part, known))
    spread = float(score.std())
    gap = float(np.average(labelled, weights=known.weight)) - float(score.mean())
    noise = 3 * spread * math.sqrt(float((known.weight**2).sum())) / float(known.weight.sum())
    if spread > 0 and abs(gap) > _SELECTED * spread + noise * (len(known) < len(part)):
        notes.append(
            f"labelled predictions score {gap:+.3g} against all in the mean: they are a selection, "
            "and the figures are theirs"
        )
    if known.cluster is not None and len(np.unique(known.cluster)) < 2:
        notes.append("all rows are of one cluster: there is no interval")
    return tuple(notes)

"""The metric that a search improves."""

from __future__ import annotations

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.statistics import METRICS, Metric, metric
from cumulant.statistics.metric_names import SEARCHABLE
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.threshold import RARE
from cumulant.training.policy import TrainingPolicy


def searched_metric(spec: TrainingPolicy, rows: TrainingSet) -> Metric:
    """The metric that the search improves.

    Raises:
        UsageError: it does not exist, does not measure the task, or needs a threshold.
    """
    if spec.metric == "auto":
        name = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}[rows.task]
        if rows.task == "binary" and min(rows.rate, 1 - rows.rate) < RARE:
            name = "average_precision" if rows.rate < RARE else "log_loss"
        return METRICS[name]
    known = [name for name in SEARCHABLE if rows.task in METRICS[name].tasks]
    try:
        declared = metric(spec.metric)
    except KeyError:
        declared = None
    if (
        declared is None
        or rows.task not in declared.tasks
        or (spec.metric in METRICS and spec.metric not in SEARCHABLE)
    ):
        hint = did_you_mean(spec.metric, known) or f"for a {rows.task} target: {', '.join(known)}"
        raise UsageError(f'the search cannot follow the metric "{spec.metric}"', subject="training.metric", hint=hint)
    return declared

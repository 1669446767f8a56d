"""The metrics by name: the tasks that they measure, their direction, and their value under weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from cumulant.statistics import sums
from cumulant.statistics.metric_names import HIGHER, TASKS, Task, bounds_of, quantile_of, tasks_of
from cumulant.statistics.ranking import Ranking
from cumulant.statistics.rows import Floats, Rows

#: from weights [resamples, clusters] to the metric's values [resamples]
Weighted = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Metric:
    """One metric. `prepare` sums rows up once; its result measures any weighting of their clusters.

    `shifted`: resampling itself moves the value (noise adds to a distance), so that an interval
    is moved back by the median shift. No value is below `least` or above `most`, and no end of an interval is.
    """

    name: str
    text: str
    tasks: tuple[Task, ...]
    prepare: Callable[[Rows], Weighted]
    shifted: bool = False

    @property
    def larger_is_better(self) -> bool:
        return self.name in HIGHER

    @property
    def least(self) -> float:
        return bounds_of(self.name)[0]

    @property
    def most(self) -> float:
        return bounds_of(self.name)[1]

    def value(self, rows: Rows) -> float:
        """The metric of all rows; NaN where it is not defined."""
        return float(self.prepare(rows)(np.ones((1, rows.clusters()[1])))[0])

    def possible(self, low: float, high: float) -> tuple[float, float]:
        """The ends of an interval without what the metric cannot be; NaN stays."""
        return float(np.clip(low, self.least, self.most)), float(np.clip(high, self.least, self.most))


_ALL = (
    Metric(
        "average_precision",
        "average precision",
        TASKS["average_precision"],
        lambda rows: Ranking(rows).average_precision,
    ),
    Metric(
        "roc_auc",
        "area under the ROC curve",
        TASKS["roc_auc"],
        lambda rows: Ranking(rows).roc_auc,
    ),
    Metric("log_loss", "log loss", TASKS["log_loss"], sums.log_loss),
    Metric("brier", "Brier score", TASKS["brier"], sums.brier),
    Metric(
        "calibration_error",
        "expected calibration error",
        TASKS["calibration_error"],
        sums.calibration_error,
        shifted=True,
    ),
    Metric("accuracy", "accuracy", TASKS["accuracy"], sums.accuracy),
    Metric("precision", "precision at the threshold", TASKS["precision"], sums.precision),
    Metric("recall", "recall at the threshold", TASKS["recall"], sums.recall),
    Metric("f1", "F1 at the threshold", TASKS["f1"], sums.f1),
    Metric("cost", "mean cost of a decision", TASKS["cost"], sums.cost),
    Metric("macro_f1", "F1, mean over classes", TASKS["macro_f1"], sums.macro_f1),
    Metric("mae", "mean absolute error", TASKS["mae"], sums.mae),
    Metric("rmse", "root mean squared error", TASKS["rmse"], sums.rmse),
    Metric("r2", "share of variance explained", TASKS["r2"], sums.r2),
    Metric("pinball", "pinball loss at the median", TASKS["pinball"], sums.pinball),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def metric(name: str) -> Metric:
    """The metric called `name`; `pinball_90` is the pinball loss at the quantile 0.90.

    Raises:
        KeyError: no metric has that name.
    """
    quantile = quantile_of(name)
    if quantile is None or name in METRICS:
        return METRICS[name]
    text = f"pinball loss at quantile {quantile:.2f}"
    return Metric(name, text, tasks_of(name), partial(sums.pinball, quantile=quantile))


def metrics_for(task: Task, *, costs: bool = False) -> tuple[Metric, ...]:
    """The metrics that measure `task`, in the order of reports; `cost` only with `costs`."""
    return tuple(candidate for candidate in _ALL if task in candidate.tasks and (costs or candidate.name != "cost"))

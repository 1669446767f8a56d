"""The metrics by name: which tasks they measure, which way is better, how they are computed under weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from cumulant.statistics import sums
from cumulant.statistics.metric_names import TASKS, Task, quantile_of, tasks_of
from cumulant.statistics.ranking import Ranking
from cumulant.statistics.rows import Floats, Rows

#: from weights [resamples, clusters] to the metric's values [resamples]
Weighted = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Metric:
    """One metric. `prepare` sums rows up once; its result measures any weighting of their clusters.

    `shifted` says that resampling itself moves the value (noise adds to a distance), so that an interval
    is moved back by the median shift.
    """

    name: str
    text: str
    tasks: tuple[Task, ...]
    better: Literal["higher", "lower"]
    prepare: Callable[[Rows], Weighted]
    shifted: bool = False

    @property
    def larger_is_better(self) -> bool:
        return self.better == "higher"

    def value(self, rows: Rows) -> float:
        """The metric of all rows; NaN where it is not defined."""
        return float(self.prepare(rows)(np.ones((1, rows.clusters()[1])))[0])


_ALL = (
    Metric(
        "average_precision",
        "average precision",
        TASKS["average_precision"],
        "higher",
        lambda rows: Ranking(rows).average_precision,
    ),
    Metric("roc_auc", "area under the ROC curve", TASKS["roc_auc"], "higher", lambda rows: Ranking(rows).roc_auc),
    Metric("log_loss", "log loss", TASKS["log_loss"], "lower", sums.log_loss),
    Metric("brier", "Brier score", TASKS["brier"], "lower", sums.brier),
    Metric(
        "calibration_error",
        "expected calibration error",
        TASKS["calibration_error"],
        "lower",
        sums.calibration_error,
        shifted=True,
    ),
    Metric("accuracy", "accuracy", TASKS["accuracy"], "higher", sums.accuracy),
    Metric("precision", "precision at the threshold", TASKS["precision"], "higher", sums.precision),
    Metric("recall", "recall at the threshold", TASKS["recall"], "higher", sums.recall),
    Metric("f1", "F1 at the threshold", TASKS["f1"], "higher", sums.f1),
    Metric("cost", "mean cost of a decision", TASKS["cost"], "lower", sums.cost),
    Metric("macro_f1", "F1, mean over classes", TASKS["macro_f1"], "higher", sums.macro_f1),
    Metric("mae", "mean absolute error", TASKS["mae"], "lower", sums.mae),
    Metric("rmse", "root mean squared error", TASKS["rmse"], "lower", sums.rmse),
    Metric("r2", "share of variance explained", TASKS["r2"], "higher", sums.r2),
    Metric("pinball", "pinball loss at the median", TASKS["pinball"], "lower", sums.pinball),
)
METRICS: dict[str, Metric] = {found.name: found for found in _ALL}


def metric(name: str) -> Metric:
    """The metric called `name`; `pinball_90` is the pinball loss at the quantile 0.90.

    Raises:
        KeyError: there is none of that name.
    """
    quantile = quantile_of(name)
    if quantile is None or name in METRICS:
        return METRICS[name]
    text = f"pinball loss at quantile {quantile:.2f}"
    return Metric(name, text, tasks_of(name), "lower", partial(sums.pinball, quantile=quantile))


def metrics_for(task: Task, *, costs: bool = False) -> tuple[Metric, ...]:
    """The metrics that measure `task`, in the order in which they are told; `cost` only with `costs`."""
    return tuple(found for found in _ALL if task in found.tasks and (costs or found.name != "cost"))

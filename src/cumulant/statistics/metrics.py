"""The metrics by name: which tasks they measure, which way is better, how they are computed under weights."""

from __future__ import annotations

import math
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
    is moved back by the median shift. No value is below `least` or above `most`, and no end of an interval is.
    """

    name: str
    text: str
    tasks: tuple[Task, ...]
    better: Literal["higher", "lower"]
    prepare: Callable[[Rows], Weighted]
    shifted: bool = False
    least: float = -math.inf
    most: float = math.inf

    @property
    def larger_is_better(self) -> bool:
        return self.better == "higher"

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
        "higher",
        lambda rows: Ranking(rows).average_precision,
        least=0,
        most=1,
    ),
    Metric(
        "roc_auc",
        "area under the ROC curve",
        TASKS["roc_auc"],
        "higher",
        lambda rows: Ranking(rows).roc_auc,
        least=0,
        most=1,
    ),
    Metric("log_loss", "log loss", TASKS["log_loss"], "lower", sums.log_loss, least=0),
    Metric("brier", "Brier score", TASKS["brier"], "lower", sums.brier, least=0),
    Metric(
        "calibration_error",
        "expected calibration error",
        TASKS["calibration_error"],
        "lower",
        sums.calibration_error,
        shifted=True,
        least=0,
        most=1,
    ),
    Metric("accuracy", "accuracy", TASKS["accuracy"], "higher", sums.accuracy, least=0, most=1),
    Metric("precision", "precision at the threshold", TASKS["precision"], "higher", sums.precision, least=0, most=1),
    Metric("recall", "recall at the threshold", TASKS["recall"], "higher", sums.recall, least=0, most=1),
    Metric("f1", "F1 at the threshold", TASKS["f1"], "higher", sums.f1, least=0, most=1),
    Metric("cost", "mean cost of a decision", TASKS["cost"], "lower", sums.cost),
    Metric("macro_f1", "F1, mean over classes", TASKS["macro_f1"], "higher", sums.macro_f1, least=0, most=1),
    Metric("mae", "mean absolute error", TASKS["mae"], "lower", sums.mae, least=0),
    Metric("rmse", "root mean squared error", TASKS["rmse"], "lower", sums.rmse, least=0),
    Metric("r2", "share of variance explained", TASKS["r2"], "higher", sums.r2, most=1),
    Metric("pinball", "pinball loss at the median", TASKS["pinball"], "lower", sums.pinball, least=0),
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
    return Metric(name, text, tasks_of(name), "lower", partial(sums.pinball, quantile=quantile), least=0)


def metrics_for(task: Task, *, costs: bool = False) -> tuple[Metric, ...]:
    """The metrics that measure `task`, in the order in which they are told; `cost` only with `costs`."""
    return tuple(found for found in _ALL if task in found.tasks and (costs or found.name != "cost"))

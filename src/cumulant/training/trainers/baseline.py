"""The answer that needs no features: what every model must beat."""

from __future__ import annotations

import numpy as np

from cumulant.statistics import quantile_of
from cumulant.training.payloads.payload import Floats, Prior
from cumulant.training.trainers.trainer import FitResult, Params, Plain, Problem, TrainingSample


class Naive(Plain):
    """The share of each class; for numbers the mean, or where the metric asks for a quantile that quantile."""

    name = "naive"

    def fit(self, problem: Problem, params: Params, train: TrainingSample) -> FitResult:
        del params
        weight = np.ones(len(train)) if train.weight is None else train.weight
        if problem.task == "binary":
            values = [float(np.average(train.target, weights=weight))]
        elif problem.task == "multiclass":
            counts = np.bincount(train.target.astype(np.int64), weight, minlength=len(problem.classes)) + 1
            values = (counts / counts.sum()).tolist()  # one more row a class, so that none is impossible
        elif (quantile := quantile_of(problem.metric)) is not None:
            values = [_quantile(train.target, weight, quantile)]
        else:
            values = [float(np.average(train.target, weights=weight))]
        return FitResult(payload=Prior(tuple(values)))


def _quantile(values: Floats, weight: Floats, quantile: float) -> float:
    """The value that `quantile` of the weight lies below; between two, where the weights are alike, on the line."""
    if np.ptp(weight) == 0:
        return float(np.quantile(values, quantile))
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(below, quantile)), len(values) - 1)])

"""The answer that needs no features: what every model must beat."""

from __future__ import annotations

import numpy as np

from cumulant.training.payloads import Prior
from cumulant.training.trainers import Fit, Params, Plain, Problem, Sample


class Naive(Plain):
    """The share of each class; for numbers the mean, or the median where the metric is an absolute error."""

    name = "naive"

    def fit(self, problem: Problem, params: Params, train: Sample) -> Fit:
        del params
        weight = np.ones(len(train)) if train.weight is None else train.weight
        if problem.task == "binary":
            values = [float(np.average(train.target, weights=weight))]
        elif problem.task == "multiclass":
            counts = np.bincount(train.target.astype(np.int64), weight, minlength=len(problem.classes)) + 1
            values = (counts / counts.sum()).tolist()  # one more row a class, so that none is impossible
        elif problem.metric in ("mae", "pinball"):
            values = [float(np.median(train.target))]
        else:
            values = [float(np.average(train.target, weights=weight))]
        return Fit(payload=Prior(tuple(values)))

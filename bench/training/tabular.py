"""Default settings on four tables, beside LightGBM's defaults on the same rows.

    python bench/training/tabular.py [adult german_credit telco_churn california_housing]

A random fifth is the test. `better_by` is oriented: above 0 Cumulant is better; its 95% interval is paired.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
from data import TABULAR, tabular

from cumulant.statistics import METRICS, difference
from cumulant.training.dataset import training_set
from cumulant.training.evaluation.evaluation import evaluate, scored
from cumulant.training.payloads.encoding import derive_inputs, encode
from cumulant.training.policy import EvaluationPolicy, TrainingPolicy
from cumulant.training.search.search import search
from cumulant.training.splits import split


def main(names: list[str]) -> None:
    for name in names:
        features, target = tabular(name)
        spec = TrainingPolicy(target=target.name)
        start = time.perf_counter()
        rows = training_set(features, target, spec=spec)
        parts = split(rows, EvaluationPolicy(), seed=spec.seed)
        found = search(parts.train, spec)
        seconds = time.perf_counter() - start
        measured = evaluate(parts.test, found.best)
        theirs = defaults(parts.train, parts.test)
        told = {"data": name, "rows": len(rows), "seconds": round(seconds, 1), "trainer": found.summary.trainer}
        told |= {"trials": found.summary.trials, "load": round(os.getloadavg()[0], 1)}
        for metric in ("roc_auc", "log_loss") if rows.task == "binary" else ("rmse", "r2"):
            base = scored(parts.test, theirs)
            gap = difference(METRICS[metric], scored(parts.test, found.best), base)
            told[metric] = {
                "cumulant": round(measured.metrics[metric].value, 4),
                "lightgbm_defaults": round(METRICS[metric].value(base), 4),
                "better_by": [round(value, 4) for value in (gap.value, gap.low, gap.high)],
            }
        print(json.dumps(told), flush=True)


def defaults(train, test) -> np.ndarray:
    import lightgbm

    inputs = derive_inputs(train.features)
    texts = [place for place, one in enumerate(inputs) if one.kind == "category"]
    kind = lightgbm.LGBMRegressor if train.task == "regression" else lightgbm.LGBMClassifier
    model = kind(n_jobs=2, verbose=-1)
    model.fit(encode(train.features, inputs), train.target, categorical_feature=texts)
    return model.booster_.predict(encode(test.features, inputs))


if __name__ == "__main__":
    main(sys.argv[1:] or list(TABULAR))

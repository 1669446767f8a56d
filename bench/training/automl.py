"""Average precision on the handbook features at a time budget; the last 30% of time as test.

    python bench/training/automl.py [--time 60s] [--seed 0]

Through the public face of `cumulant.training`, beside LightGBM's defaults on the same rows in the same sitting. The
same data and split as the peers' script, which gave: LightGBM defaults 0.68, FLAML 0.63, Optuna with LightGBM
0.735, AutoGluon (medium quality) 0.758.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np
from data import handbook

from cumulant.core.units import duration
from cumulant.statistics import average_precision
from cumulant.training.dataset import training_set
from cumulant.training.evaluation.evaluation import evaluate
from cumulant.training.policy import TrainingPolicy
from cumulant.training.search.search import search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="60s")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    features, target, at = handbook()
    cut = int(len(features) * 0.7)
    spec = TrainingPolicy(target="TX_FRAUD", time=duration(chosen.time), seed=chosen.seed)
    start = time.perf_counter()
    rows = training_set(features, target, spec=spec, at=at)
    train, test = rows.take(np.arange(cut)), rows.take(np.arange(cut, len(rows)))
    found = search(train, spec, progress=lambda text, share=None: print(f"  {text}", flush=True))
    seconds = time.perf_counter() - start
    measured = evaluate(test, found.best)
    precision = measured.metrics["average_precision"]
    print(
        json.dumps(
            {
                "average_precision": round(precision.value, 4),
                "interval": [round(precision.low, 4), round(precision.high, 4)],
                "seconds": round(seconds, 1),
                "trials": found.summary.trials,
                "members": found.summary.members,
                "naive": round(measured.positives, 4),
                "lightgbm_defaults": round(defaults(train, test), 4),
                "notes": found.summary.notes,
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


def defaults(train, test) -> float:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_jobs=2, verbose=-1)
    model.fit(train.features.to_numpy(), train.target)
    return average_precision(test.target, model.booster_.predict(test.features.to_numpy()))


if __name__ == "__main__":
    main()

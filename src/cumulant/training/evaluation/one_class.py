"""Whether a classifier predicts one class for every test row, which metrics of its scores do not show."""

from __future__ import annotations

import numpy as np

from cumulant.core.servable import Task
from cumulant.statistics import Metric, Rows

_HINT = (
    "set `training.threshold` or `training.cost`, and a limit such as `recall: {min: 0.3}` under `evaluation.gate` "
    "to refuse such a model"
)


def one_class_warning(rows: Rows, *, task: Task, main: Metric) -> str:
    """What to say of a classifier whose predictions are one class alone although the test rows have several; empty
    for any other model.

    A metric of scores, such as `main`, may be better than naive all the same: it does not read decisions.
    """
    if task == "regression" or not len(rows) or len(np.unique(rows.truth)) < 2:
        return ""
    judged = f"the verdict is about {main.text}"
    if task == "multiclass":
        predicted = np.unique(rows.prediction.argmax(axis=1))
        if len(predicted) > 1:
            return ""
        other = int((rows.truth != predicted[0]).sum())
        return (
            f"the model predicts one class for all {len(rows):,} test rows, {other:,} of which are of another: "
            f"{judged}, not about the predicted class; `training.metric: macro_f1` searches for one that parts them"
        )
    if rows.decision is None or rows.decision.any() != rows.decision.all():
        return ""
    positives = int(rows.truth.sum())
    if rows.decision.all():
        predictions = f"positive for all {len(rows):,} test rows, {len(rows) - positives:,} of which are negative"
    else:
        predictions = f"negative for all {len(rows):,} test rows, so recall is 0: it misses all {positives:,} positives"
    return f"the model predicts {predictions}; {judged}, not about decisions at the threshold; {_HINT}"

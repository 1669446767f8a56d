"""Curves of an evaluation as short lists of numbers, ready for JSON and plots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics import Rows
from cumulant.training.records import Curve

Floats = NDArray[np.float64]

POINTS = 120
BINS = 10


def curves(rows: Rows, *, task: str, classes: Sequence[str] = (), days: float | None = None) -> dict[str, Curve]:
    """The curves that tell a model of `task`. `days` is the time that rows span, for alerts a day:
    of these rows, which have a label, and of no others.

    binary: roc, precision_recall, calibration, threshold, scores. multiclass: calibration, confusion.
    regression: calibration (mean truth by tenth of the prediction), residuals.
    """
    if task == "binary":
        curves_by_name = {"calibration": _calibration(rows.prediction, rows.truth), "scores": _scores(rows)}
        if 0 < rows.truth.sum() < len(rows):
            curves_by_name |= _ranked(rows, days)
        return curves_by_name
    if task == "multiclass":
        hit = (rows.prediction.argmax(axis=1) == rows.truth).astype(np.float64)
        return {"calibration": _calibration(rows.prediction.max(axis=1), hit), "confusion": _confusion(rows, classes)}
    return {"calibration": _by_tenth(rows), "residuals": _residuals(rows)}


def _numbers(values: Floats) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _ranked(rows: Rows, days: float | None) -> dict[str, Curve]:
    """ROC, precision and recall, and what each threshold means, at most POINTS of each."""
    order = np.argsort(-rows.prediction, kind="stable")
    score, truth = rows.prediction[order], rows.truth[order]
    ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
    true, false = np.cumsum(truth)[ends], np.cumsum(1 - truth)[ends]
    positives, negatives = true[-1], false[-1]
    # even steps along recall and along false alarms keep both curves' corners
    steps = np.linspace(0, 1, POINTS // 2)
    chosen = np.unique(
        np.r_[np.searchsorted(true, steps * positives), np.searchsorted(false, steps * negatives)].clip(
            0, len(ends) - 1
        )
    )
    t, f, at = true[chosen], false[chosen], score[ends][chosen]
    recall, precision = t / positives, t / (t + f)
    table = {"threshold": _numbers(at), "precision": _numbers(precision), "recall": _numbers(recall)}
    table["called_positive"] = _numbers((t + f) / len(rows))
    if days:
        table["alerts_a_day"] = _numbers((t + f) / days)
    if rows.cost_false_negative is not None and rows.cost_false_positive is not None:
        missed = np.cumsum(truth * rows.cost_false_negative[order])[ends][chosen]
        alarms = np.cumsum((1 - truth) * rows.cost_false_positive[order])[ends][chosen]
        total = float((rows.truth * rows.cost_false_negative).sum())
        table["cost"] = _numbers((total - missed + alarms) / len(rows))
    return {
        "roc": Curve(
            text="share of positives found against share of negatives called positive",
            columns={
                "false_positive_rate": _numbers(np.r_[0, f / negatives]),
                "true_positive_rate": _numbers(np.r_[0, recall]),
            },
        ),
        "precision_recall": Curve(
            text="precision against recall",
            columns={"recall": _numbers(recall), "precision": _numbers(precision)},
        ),
        "threshold": Curve(text="what each threshold means on these rows", columns=table),
    }


def _calibration(predicted: Floats, hit: Floats) -> Curve:
    """Mean probability and observed share over bins that hold equally many rows."""
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    columns = {
        "predicted": _numbers(np.array([predicted[part].mean() for part in parts])),
        "observed": _numbers(np.array([hit[part].mean() for part in parts])),
        "rows": [float(len(part)) for part in parts],
    }
    return Curve(text="observed share by predicted probability, tenths of the rows", columns=columns)


def _scores(rows: Rows) -> Curve:
    edges = np.linspace(0, 1, 41)
    negative, _ = np.histogram(rows.prediction[rows.truth < 0.5], edges)
    positive, _ = np.histogram(rows.prediction[rows.truth > 0.5], edges)
    columns = {
        "from": _numbers(edges[:-1]),
        "to": _numbers(edges[1:]),
        "negative": negative.astype(float).tolist(),
        "positive": positive.astype(float).tolist(),
    }
    return Curve(text="rows by predicted probability and class", columns=columns)


def _confusion(rows: Rows, classes: Sequence[str]) -> Curve:
    count = len(classes)
    table = np.zeros((count, count))
    np.add.at(table, (rows.truth.astype(np.int64), rows.prediction.argmax(axis=1)), 1)
    columns = {f"predicted {name}": table[:, place].tolist() for place, name in enumerate(classes)}
    return Curve(text="rows by true class (in the order of classes) and predicted class", columns=columns)


def _by_tenth(rows: Rows) -> Curve:
    order = np.argsort(rows.prediction, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    columns = {
        "predicted": _numbers(np.array([rows.prediction[part].mean() for part in parts])),
        "observed": _numbers(np.array([rows.truth[part].mean() for part in parts])),
        "rows": [float(len(part)) for part in parts],
    }
    return Curve(text="mean truth by mean prediction, tenths of the rows", columns=columns)


def _residuals(rows: Rows) -> Curve:
    residual = rows.truth - rows.prediction
    low, high = np.quantile(residual, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 41)
    counts, _ = np.histogram(residual, edges)
    columns = {"from": _numbers(edges[:-1]), "to": _numbers(edges[1:]), "rows": counts.astype(float).tolist()}
    return Curve(text="rows by truth less prediction, the middle 99 of 100", columns=columns)

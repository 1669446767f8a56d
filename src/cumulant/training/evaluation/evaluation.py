"""Figures of a model on rows that it never saw: metrics with intervals over days or entities, by slice, and curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core import units
from cumulant.core.errors import UsageError, not_found
from cumulant.statistics import Estimate, Metric, Rows, cluster_codes, estimate, metrics_for
from cumulant.statistics.performance.reliability import RESAMPLES as BAND_RESAMPLES
from cumulant.statistics.performance.reliability import reliability_curve
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.threshold import sampling_weight
from cumulant.training.evaluation.traffic_rows import DAY, Micros, ScoredTraffic
from cumulant.training.model import FittedModel
from cumulant.training.policy import EvaluationPolicy
from cumulant.training.records import Curve, Evaluation, SliceResult
from cumulant.training.spec import RESAMPLES

Floats = NDArray[np.float64]

#: of a curve, and of a histogram or a calibration
_POINTS, _BINS = 120, 10
#: with fewer days than this intervals over days are wide, which a note says
_LEAST_DAYS = 8
SLICE_RESAMPLES = 300
#: values of a slice column that are reported: the most frequent
MOST_SLICES = 12
#: a slice with fewer rows is counted, not measured
LEAST_SLICE_ROWS = 30


def scored(
    rows: TrainingSet,
    prediction: FittedModel | Floats,
    spec: EvaluationPolicy | None = None,
    *,
    threshold: float | None = None,
) -> Rows:
    """`rows` with their truth, predictions, decisions, costs and clusters, as the metrics read them.

    `prediction`: a model, or its answers [n] or [n, classes] together with its `threshold`.

    Raises:
        UsageError: the clusters are a column that rows do not have.
    """
    if isinstance(prediction, FittedModel):
        threshold = prediction.threshold
        prediction = prediction.predict_frame(rows.features)
    decision = None
    if rows.task == "binary":
        decision = prediction >= (0.5 if threshold is None else threshold)
    return Rows(
        truth=rows.target,
        prediction=np.asarray(prediction, dtype=np.float64),
        cluster=_clusters(rows, spec or EvaluationPolicy())[1],
        decision=decision,
        cost_false_negative=rows.false_negative,
        cost_false_positive=rows.false_positive,
    )


def evaluate(
    rows: TrainingSet,
    prediction: FittedModel | Floats,
    spec: EvaluationPolicy | None = None,
    *,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """All metrics of the task with 95% intervals, the declared slices, and curves.

    Raises:
        NotFoundError: a slice names a column that is not among the slice columns or features.
        UsageError: the clusters are a column that rows do not have.
    """
    spec = spec or EvaluationPolicy()
    measured = scored(rows, prediction, spec, threshold=threshold)
    if isinstance(prediction, FittedModel):
        threshold = prediction.threshold
    kind, _, note = _clusters(rows, spec)
    metrics = metrics_for(rows.task, costs=rows.false_negative is not None)
    estimates = _estimates(metrics, measured, resamples=resamples, seed=seed)
    span = None if rows.at is None or not len(rows) else (int(rows.at.min()), int(rows.at.max()))
    days = _days(rows.at)
    return Evaluation(
        task=rows.task,
        rows=len(rows),
        positives=rows.rate if rows.task == "binary" else None,
        begin=None if span is None else units.from_micros(span[0]).isoformat(),
        end=None if span is None else units.from_micros(span[1]).isoformat(),
        cluster=kind,
        clusters=measured.clusters()[1],
        threshold=(0.5 if threshold is None else threshold) if rows.task == "binary" else None,
        alerts=None if measured.decision is None else float((sampling_weight(rows) * measured.decision).sum()),
        days=days,
        metrics=estimates,
        slices=tuple(_slices(rows, measured, spec.slices, metrics, seed=seed)),
        curves=curves(measured, task=rows.task, classes=rows.classes, days=days, resamples=resamples, seed=seed),
        importance=prediction.importance if isinstance(prediction, FittedModel) else {},
        notes=(note,) if note else (),
    )


def _days(at: Micros | None) -> float | None:
    """How many days the rows fill, counted as for a capacity. The last time stands for as long as is usual between
    two, so that rows of two dates fill two days.
    """
    if at is None or not len(at):
        return None
    times = np.unique(at)
    usual = int(np.median(np.diff(times))) if len(times) > 1 else DAY
    none = np.zeros(0)
    span = (int(times[0]), int(times[-1]) + usual)
    return ScoredTraffic(scores=none, sampling_weight=none, at=at, spans=(span,)).periods(DAY)


def _estimates(metrics: Sequence[Metric], rows: Rows, *, resamples: int, seed: int) -> dict[str, Estimate]:
    return {metric.name: estimate(metric, rows, resamples=resamples, seed=seed) for metric in metrics}


def _clusters(rows: TrainingSet, spec: EvaluationPolicy) -> tuple[str, NDArray[np.int64] | None, str]:
    """The kind of cluster, its codes [n], and a note where it is not what one would expect."""
    wanted = spec.clusters
    if wanted == "row":
        return "row", None, ""
    if wanted not in ("auto", "day"):
        return wanted, _cluster_column(rows, wanted), ""
    if rows.at is not None:
        days = cluster_codes(rows.at // DAY)
        return "day", days, _few_days(int(days.max()) + 1 if len(days) else 0)
    if wanted == "day":
        raise UsageError("evaluation.clusters is day, but rows have no time", hint="declare event_time of the source")
    if rows.groups is not None:
        return "group", cluster_codes(rows.groups), ""
    return "row", None, ""


def _few_days(days: int) -> str:
    """What few days mean for the intervals. No part of a day stands for one: rows of a day have in common what parts of
    it have in common too.
    """
    if days >= _LEAST_DAYS or not days:
        return ""
    hint = "a longer evaluation.test says more; `evaluation.clusters: row` if rows of a day are independent"
    if days == 1:
        return f"all test rows are of one day, so how days differ is not known and there are no intervals: {hint}"
    return f"the test spans {days} days: intervals over so few are wide ({hint})"


def _cluster_column(rows: TrainingSet, name: str) -> NDArray[np.int64]:
    """Codes of the column that the intervals go by: it need not be a feature, and then came as the groups."""
    column = _column(rows, name)
    if column is not None:
        ranked = column.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64) - 1
        return np.asarray(ranked.to_numpy(), dtype=np.int64)
    if rows.groups is None:
        raise UsageError(
            f'evaluation.clusters is "{name}", which is no column of these rows',
            subject=name,
            hint="write auto, day, row, or a column of the source",
        )
    return cluster_codes(rows.groups)


def _column(rows: TrainingSet, name: str) -> pl.Series | None:
    for frame in (rows.slices, rows.features):
        if frame is not None and name in frame.columns:
            return frame[name]
    return None


def _slices(
    rows: TrainingSet, measured: Rows, names: Sequence[str], metrics: Sequence[Metric], *, seed: int
) -> Iterator[SliceResult]:
    for name in names:
        column = _column(rows, name)
        if column is None:
            known = set(rows.features.columns) | set(() if rows.slices is None else rows.slices.columns)
            raise not_found("slice column", name, known)
        texts = _slice_texts(column)
        counts = texts.value_counts(name="rows").sort(["rows", texts.name], descending=[True, False])
        for value, count in counts.head(MOST_SLICES).iter_rows():
            estimates: dict[str, Estimate] = {}
            if count >= LEAST_SLICE_ROWS:
                mask = np.asarray((texts == value).to_numpy(), dtype=bool)
                estimates = _estimates(metrics, measured.where(mask), resamples=SLICE_RESAMPLES, seed=seed)
            yield SliceResult(column=name, value=value, rows=count, metrics=estimates)
        rest = counts["rows"][MOST_SLICES:].sum()
        if rest:
            yield SliceResult(column=name, value=f"{len(counts) - MOST_SLICES} others", rows=int(rest))


def _slice_texts(column: pl.Series) -> pl.Series:
    """Values as text, null as `missing`; numbers with many values in quarters."""
    if column.dtype.is_numeric() and column.n_unique() > MOST_SLICES:
        edges = sorted({float(column.quantile(share) or 0.0) for share in (0.25, 0.5, 0.75)})
        labels = [f"to {edges[0]:.4g}", *(f"to {edge:.4g}" for edge in edges[1:]), f"above {edges[-1]:.4g}"]
        values = np.asarray(column.cast(pl.Float64).fill_null(np.nan).to_numpy(), dtype=np.float64)
        place = np.searchsorted(edges, values, side="left")
        texts = [None if missing else labels[at] for at, missing in zip(place, np.isnan(values), strict=True)]
        return pl.Series(column.name, texts, dtype=pl.String).fill_null("missing")
    return column.cast(pl.String).fill_null("missing")


def curves(
    rows: Rows,
    *,
    task: str,
    classes: Sequence[str] = (),
    days: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Curve]:
    """The curves that tell a model of `task`. `days` is the time that rows span, for alerts a day:
    of these rows, which have a label, and of no others. `resamples`: of bands, at most.

    binary: roc, precision_recall, calibration, reliability, threshold, scores. multiclass: calibration, reliability
    and scores of the class that was predicted, confusion. regression: calibration (mean truth by tenth of the
    prediction), residuals.
    """
    if task == "binary":
        curves_by_name = {
            "calibration": _calibration(rows.prediction, rows.truth),
            "reliability": _reliability(rows.prediction, rows.truth, resamples=resamples, seed=seed),
            "scores": _scores(rows.prediction, rows.truth),
        }
        if 0 < rows.truth.sum() < len(rows):
            curves_by_name |= _ranked(rows, days)
        return curves_by_name
    if task == "multiclass":
        hit = (rows.prediction.argmax(axis=1) == rows.truth).astype(np.float64)
        sureness = rows.prediction.max(axis=1)
        return {
            "calibration": _calibration(sureness, hit),
            "reliability": _reliability(sureness, hit, resamples=resamples, seed=seed),
            "scores": _scores(sureness, hit),
            "confusion": _confusion(rows, classes),
        }
    return {"calibration": _by_tenth(rows), "residuals": _residuals(rows)}


def _numbers(values: Floats) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _ranked(rows: Rows, days: float | None) -> dict[str, Curve]:
    """ROC, precision and recall, and what each threshold means, at most _POINTS of each."""
    order = np.argsort(-rows.prediction, kind="stable")
    score, truth = rows.prediction[order], rows.truth[order]
    ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
    true, false = np.cumsum(truth)[ends], np.cumsum(1 - truth)[ends]
    positives, negatives = true[-1], false[-1]
    # even steps along recall and along false alarms keep both curves' corners
    steps = np.linspace(0, 1, _POINTS // 2)
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
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    columns = {
        "predicted": _numbers(np.array([predicted[part].mean() for part in parts])),
        "observed": _numbers(np.array([hit[part].mean() for part in parts])),
        "rows": [float(len(part)) for part in parts],
    }
    return Curve(text="observed share by predicted probability, tenths of the rows", columns=columns)


def _reliability(predicted: Floats, hit: Floats, *, resamples: int, seed: int) -> Curve:
    """The isotonic fit with its consistency band."""
    fit = reliability_curve(predicted, hit, resamples=min(resamples, BAND_RESAMPLES), seed=seed)
    columns = {name: _numbers(getattr(fit, name)) for name in ("predicted", "observed", "low", "high")}
    return Curve(
        text="isotonic fit of what happened, and the 95% consistency band of a calibrated model", columns=columns
    )


def _scores(predicted: Floats, hit: Floats) -> Curve:
    edges = np.linspace(0, 1, 41)
    negative, _ = np.histogram(predicted[hit < 0.5], edges)
    positive, _ = np.histogram(predicted[hit > 0.5], edges)
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
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
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

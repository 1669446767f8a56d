"""Measuring a model on rows that it never saw, with intervals over days or entities and by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core import units
from cumulant.core.errors import UsageError, not_found
from cumulant.statistics import Estimate, Metric, Rows, cluster_codes, estimate, metrics_for
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.curves import curves
from cumulant.training.evaluation.threshold import sampling_weight
from cumulant.training.evaluation.traffic_rows import DAY, Micros, ScoredTraffic
from cumulant.training.model import FittedModel
from cumulant.training.policy import EvaluationPolicy
from cumulant.training.records import Evaluation, SliceResult
from cumulant.training.spec import RESAMPLES

Floats = NDArray[np.float64]

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
        curves=curves(measured, task=rows.task, classes=rows.classes, days=days),
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

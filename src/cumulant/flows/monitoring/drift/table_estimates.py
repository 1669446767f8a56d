"""Estimates of accuracy and losses from the class probabilities of a table, before labels come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.flows.monitoring.result import SPAN, reason_for_distrust
from cumulant.monitoring.drift.categories import text
from cumulant.monitoring.drift.words import day
from cumulant.monitoring.performance.labelled import LEAST_LABELS, LEAST_SHARE
from cumulant.monitoring.performance.multiclass import ClassEstimators, estimate_class_windows, learn_estimators
from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow, are_probabilities, rounded, windows
from cumulant.monitoring.performance.unlabelled import EstimatedFigure, EstimatedWindow
from cumulant.monitoring.tables import ANSWER
from cumulant.statistics.performance.audit import Audit, audit
from cumulant.statistics.sums import CLIP

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.window_counts import TableWindows, Windows
    from cumulant.monitoring.drift.profiles import ProfileBlock
    from cumulant.statistics.rows import Codes, Floats

#: windows as days from 1970, and one window that holds all of them
_DAY, _ALL = timedelta(days=1), timedelta(days=73_000)
_START = datetime(1970, 1, 1, tzinfo=UTC)
_PROBABILITIES = "probabilities"
_NONE, _AUDITED = PredictionWindow(start=_START, end=_START), "log_loss"
#: the fewest classes that are several, and the share of rows that may lack the probability of one
_LEAST, _LACKING = 3, 0.02
#: rows of the reference, of a window, and of the newest windows together at most: more cost time, and make little surer
_MOST_LEARNED, _MOST_OF_WINDOW, _MOST = 10_000, 2_000, 5_000


class ClassWindow(msgspec.Struct, frozen=True, kw_only=True):
    start: str
    rows: int
    figures: dict[str, EstimatedFigure] = {}
    refused: str | None = None


class TableEstimates(msgspec.Struct, frozen=True, kw_only=True):
    """`figures`: of `rows` of the newest `windows` together; `reference`: its metrics; `refused`: why there are none.

    `audit`: of the log loss of labelled windows.
    """

    windows: tuple[ClassWindow, ...] = ()
    rows: int = 0
    figures: dict[str, EstimatedFigure] = {}
    reference: dict[str, float] = {}
    audit: Audit | None = None
    refused: str | None = None


@dataclass(frozen=True)
class _Classes:
    """Where a table has the probability of each class, by its name: in a column of structs, or in columns."""

    names: tuple[str, ...]
    columns: tuple[str, ...]
    struct: bool

    def of(self, frame: pl.DataFrame, names: Sequence[str]) -> Floats:
        """[n, classes] in the order of `names`; NaN where a row lacks one."""
        rows = frame[self.columns[0]].struct.unnest() if self.struct else frame.select(self.columns)
        named = rows.rename(dict(zip(rows.columns, self.names, strict=True)))
        scores: Floats = named.select(names).cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        return scores


@dataclass(frozen=True)
class _Rows:
    """Rows that may be estimated, and of each window how many of how many rows lack probabilities."""

    predictions: PredictionRows
    lacking: Mapping[int, tuple[int, int]]


def table_estimates(
    now: Windows, before: TableWindows, truth: str | None, label: str | None, blocks: Sequence[ProfileBlock]
) -> TableEstimates | None:
    """Metrics without labels of the newest windows, each and together; None where no answer has three classes.

    Args:
        now: the rows, of which those of the newest windows are read.
        before: the reference.
        truth: its column of labels.
        label: that of `now`, by which estimates are audited.
        blocks: the windows of `now`.
    """
    named = [name for name in now.columns if name.removeprefix(ANSWER).split(".")[0] == _PROBABILITIES]
    reference_classes = _classes(before.table.rows.collect_schema())
    if reference_classes is None or not named:
        return None
    wanted = [*named, *([] if label is None else [label])]
    frame, codes = now.rows(wanted, max(len(blocks) - SPAN, 0), len(blocks) - 1)
    row_classes = _classes(frame.schema)
    if row_classes is None or {*row_classes.names} != {*reference_classes.names}:
        return TableEstimates(
            refused=f"the rows lack the reference's probabilities of {', '.join(reference_classes.names)}"
        )
    reference = None if truth is None else _reference(before, reference_classes, truth)
    if reference is None or not reference.labelled.any():
        return TableEstimates(refused="no row of the reference has a label of its classes; --label names their column")
    estimators = learn_estimators(reference, names=reference_classes.names, every=_DAY)
    if estimators.refused is not None:
        return TableEstimates(refused=estimators.refused)
    score = row_classes.of(frame, reference_classes.names)
    rows = _rows(
        score,
        _places(frame, label, reference_classes.names),
        np.zeros(len(score), np.int64) if codes is None else codes,
    )
    return _result(rows, estimators, blocks)


def _classes(schema: Mapping[str, pl.DataType]) -> _Classes | None:
    for whole in (f"{ANSWER}{_PROBABILITIES}", _PROBABILITIES):
        kind = schema.get(whole)
        if isinstance(kind, pl.Struct):
            classes = _Classes(tuple(field.name for field in kind.fields), (whole,), struct=True)
        else:
            columns = tuple(name for name in schema if name.startswith(f"{whole}."))
            classes = _Classes(tuple(name.removeprefix(f"{whole}.") for name in columns), columns, struct=False)
        if len(classes.names) >= _LEAST:
            return classes
    return None


def _places(frame: pl.DataFrame, label: str | None, names: Sequence[str]) -> Floats:
    """[n] the place of each row's class; NaN where it has none."""
    if label is None:
        return np.full(frame.height, np.nan)
    places = [float(place) for place in range(len(names))]
    codes: Floats = (
        text(frame[label]).replace_strict(list(names), places, default=None, return_dtype=pl.Float64).to_numpy()
    )
    return codes


def _reference(before: TableWindows, classes: _Classes, truth: str) -> PredictionRows:
    """The labelled rows of the reference; those of a timed window depend on each other."""
    frame = before.all([*classes.columns, truth])
    cut, score, place = before.cut, classes.of(frame, classes.names), _places(frame, truth, classes.names)
    codes = np.zeros(len(score), dtype=np.int64) if cut.codes is None else cut.codes
    labelled = np.isfinite(place) & (codes < len(cut.blocks))
    predictions = _thinned(_rows(score[labelled], place[labelled], codes[labelled]).predictions, _MOST_LEARNED)
    timed = len(cut.blocks) > 1 and cut.blocks[0].timed
    return predictions if timed else replace(predictions, cluster=None)


def _rows(score: Floats, place: Floats, codes: Codes) -> _Rows:
    """Windows are numbered by days from 1970, as times."""
    score = rounded(score)
    whole = are_probabilities(score)
    total = np.bincount(codes, minlength=1)
    lacking = zip(np.bincount(codes[~whole], minlength=len(total)).tolist(), total.tolist(), strict=True)
    days = np.datetime64(0, "us") + codes[whole] * np.timedelta64(86_400_000_000, "us")
    predictions = PredictionRows(time=days, score=score[whole], truth=place[whole], cluster=codes[whole])
    return _Rows(predictions, dict(enumerate(lacking)))


def _thinned(part: PredictionRows, most: int) -> PredictionRows:
    if len(part) <= most:
        return part
    return part.where(np.linspace(0, len(part) - 1, most).astype(np.int64))


def _result(rows: _Rows, estimators: ClassEstimators, blocks: Sequence[ProfileBlock]) -> TableEstimates:
    parts = {
        (window.start - _START) // _DAY: _thinned(part, _MOST_OF_WINDOW)
        for window, part in windows(rows.predictions, _DAY)
    }
    each = {code: _estimated(estimators, part, [rows.lacking[code]]) for code, part in parts.items()}
    checked = _audit([(each[code].figures, part) for code, part in parts.items()], estimators)
    last = _estimated(estimators, _thinned(rows.predictions, _MOST), rows.lacking.values())
    refused = reason_for_distrust(several=True, last=None, audit=checked) or last.refused
    return TableEstimates(
        windows=tuple(
            ClassWindow(
                start=day(blocks[code]),
                rows=window_result.rows,
                figures=window_result.figures,
                refused=window_result.refused,
            )
            for code, window_result in each.items()
        ),
        rows=last.rows,
        figures={} if refused else last.figures,
        reference=estimators.before,
        audit=checked,
        refused=refused,
    )


def _estimated(
    estimators: ClassEstimators, part: PredictionRows, lacking: Iterable[tuple[int, int]]
) -> EstimatedWindow:
    """All rows as one window; none where many of them lack probabilities."""
    without, total = (sum(counts) for counts in zip(*lacking, strict=True))
    if without > _LACKING * total or not len(part):
        share = f"{without / max(total, 1):.1%} of the rows lack the probability of each class"
        return EstimatedWindow(window=_NONE, rows=len(part), figures={}, refused=f"{share}; {_LACKING:.0%} may")
    return estimate_class_windows(estimators, part, every=_ALL)[0]


def _audit(pairs: Sequence[tuple[Mapping[str, EstimatedFigure], PredictionRows]], of: ClassEstimators) -> Audit | None:
    """The log loss of windows beside that of their labels, where these speak for all rows."""
    intervals, truths = [], []
    for figures, part in pairs:
        known = part.where(part.labelled)
        if _AUDITED in figures and len(known) >= max(LEAST_LABELS, LEAST_SHARE * len(part)):
            figure, scores = figures[_AUDITED], known.score[np.arange(len(known)), known.truth.astype(np.int64)]
            intervals.append((figure.low, figure.value, figure.high))
            truths.append(float(-np.log(np.clip(scores, CLIP, 1.0)).mean()))
    return audit(intervals, truths, before=of.before[_AUDITED]) if intervals else None

"""Losses of a table's labelled rows by window, and whether they exceed the reference's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import DataError
from cumulant.monitoring.drift.words import begin_text, day
from cumulant.monitoring.performance.baselines import harm_policy, learn_baseline
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.kinds import Kind, Question
from cumulant.monitoring.performance.loss_monitor import COMPARED_WITH, add_window, begin_monitor
from cumulant.monitoring.performance.rows import PredictionRows, windows
from cumulant.statistics import Word

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.window_counts import TableWindows
    from cumulant.monitoring.performance.recalibration import Task
    from cumulant.monitoring.policy import PerformancePolicy
    from cumulant.statistics.rows import Flags, Floats

_DAY = timedelta(days=1)
_START = datetime(1970, 1, 1, tzinfo=UTC)
#: least labels of a window's loss
_LEAST = 30
#: rows of which the values are texts at a time
_PART = 1_000_000
#: the share of scores beyond 0 and 1 with which they may be probabilities, and how far rounding takes one beyond
_OUTSIDE, _ROUNDING = 0.01, 1e-6
Measure = Literal["brier", "squared_error", "zero_one"]


class LossWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The mean loss of a window's labelled rows."""

    start: str
    labelled: int
    loss: float


class TableLoss(msgspec.Struct, frozen=True, kw_only=True):
    """`reference`: mean loss of its labelled rows; `word`: on harm of the newest windows; `refused`: why none."""

    measure: Measure | None
    windows: tuple[LossWindow, ...] = ()
    loss: float | None = None
    reference: float | None = None
    word: Word = "cannot_tell"
    kind: Kind | None = None
    since: str | None = None
    sentence: str = ""
    refused: str = ""


@dataclass(frozen=True)
class _Scored:
    """Columns of scores and, where a probability needs it, of decisions; the class whose probability the score is."""

    measure: Measure
    score: str
    positive: str | None


def table_loss(
    now: TableWindows, before: TableWindows, label: str, answers: Sequence[str], policy: PerformancePolicy
) -> TableLoss:
    """The losses of the rows that have a label, window by window, and harm where the reference has labels, too."""
    frame = now.all([label, *answers])
    how = _scored(frame, label, answers)
    if how is None:
        return TableLoss(
            measure=None,
            refused=f"no answer can be compared with {label}: a probability of two classes, "
            "a number, or the class itself",
        )
    rows = _predictions(frame, label, how, now)
    del frame
    windows = _windows(rows, how, now)
    if not windows:
        return TableLoss(measure=how.measure, refused=f"no window has {_LEAST} rows with a label and an answer")
    total = sum(window.labelled for window in windows)
    result = TableLoss(
        measure=how.measure, windows=windows, loss=sum(window.loss * window.labelled for window in windows) / total
    )
    if how.measure == "zero_one" and how.positive is None:
        return msgspec.structs.replace(
            result, refused="harm of several classes takes their probabilities: monitor watch"
        )
    if not {label, how.score} <= {*before.columns}:
        lacking = ", ".join(sorted({label, how.score} - {*before.columns}))
        why = f"the reference lacks {lacking}, so that no loss is expected"
        return msgspec.structs.replace(result, refused=why)
    reference = _predictions(before.all([label, how.score]), label, how, before)
    return _harm(result, reference, rows, now, policy)


def _scored(frame: pl.DataFrame, label: str, answers: Sequence[str]) -> _Scored | None:
    """The answer that is compared with the label, and how."""
    numbers = [name for name in answers if frame[name].dtype.is_numeric() and frame[name].drop_nulls().len()]
    classes: set[str] = set()
    for part in _texts(frame[label]):
        classes |= {*part.unique()}
        if len(classes) > 2 and numbers and frame[label].dtype.is_numeric():
            return _Scored("squared_error", numbers[0], None)
    if len(classes) <= 2:
        inside = [name for name in numbers if _mostly_within(frame[name])]
        inside.sort(key=lambda name: -frame[name].n_unique())
        positive = _positive(frame, classes, answers, inside)
        if inside and positive is not None:
            measure: Measure = "brier" if frame[inside[0]].n_unique() > len(classes) else "zero_one"
            return _Scored(measure, inside[0], positive)
    same = [name for name in answers if any(classes & {*part.unique()} for part in _texts(frame[name]))]
    return _Scored("zero_one", same[0], None) if same else None


def _mostly_within(values: pl.Series) -> bool:
    """Whether nearly all are within 0 and 1, as probabilities are."""
    numbers = values.cast(pl.Float64).drop_nulls()
    return bool(_within(numbers.to_numpy()).mean() >= 1 - _OUTSIDE)


def _within(score: Floats) -> Flags:
    flags: Flags = (score >= -_ROUNDING) & (score <= 1 + _ROUNDING)
    return flags


def _texts(values: pl.Series) -> Iterator[pl.Series]:
    """The values as texts, without nulls; some at a time, since the texts of all rows take more than the rows."""
    from cumulant.monitoring.drift.categories import text

    for first in range(0, len(values), _PART):
        yield text(values.slice(first, _PART).drop_nulls()).replace({"true": "1", "false": "0"})


def _positive(frame: pl.DataFrame, classes: set[str], answers: Sequence[str], inside: Sequence[str]) -> str | None:
    """The class that a probability is of: 1 or true, else the one that was answered at higher probabilities."""
    if classes <= {"0", "1"}:
        return "1"
    named = [name for name in answers if all({*part.unique()} <= classes for part in _texts(frame[name]))]
    if not named or not inside or len(classes) != 2:
        return None
    means = frame.group_by(named[0]).agg(pl.col(inside[0]).mean()).drop_nulls().sort(inside[0], named[0])
    return str(next(_texts(means[named[0]]))[-1]) if means.height == 2 else None


def _predictions(frame: pl.DataFrame, label: str, how: _Scored, side: TableWindows) -> PredictionRows:
    """The rows with a label and an answer; the time is that of their window, numbered where it has none."""
    codes = np.zeros(frame.height, dtype=np.int64) if side.cut.codes is None else side.cut.codes
    answered = (frame[label].is_not_null() & frame[how.score].is_not_null()).to_numpy() & (codes < len(side.cut.blocks))
    rows, codes = frame.filter(pl.Series(answered)), codes[answered]
    if how.positive is not None:
        truth = _flags([part == how.positive for part in _texts(rows[label])])
        score = rows[how.score].cast(pl.Float64).to_numpy()
    elif how.measure == "zero_one":  # several classes: the score is whether the answer was wrong
        truth = np.zeros(rows.height)
        pairs = zip(_texts(rows[label]), _texts(rows[how.score]), strict=True)
        score = _flags([label_text != other for label_text, other in pairs])
    else:
        truth, score = (rows[name].cast(pl.Float64).to_numpy() for name in (label, how.score))
    good = np.isfinite(truth) & np.isfinite(score)
    if how.positive is not None:  # what rounding took beyond is 0 or 1; what lies further out is no probability
        good, score = good & _within(score), np.clip(score, 0.0, 1.0)
    days = np.datetime64(0, "us") + codes * np.timedelta64(86_400_000_000, "us")
    timed = len(side.cut.blocks) > 1 and side.cut.blocks[0].timed
    return PredictionRows(time=days[good], score=score[good], truth=truth[good], cluster=codes[good] if timed else None)


def _flags(parts: Sequence[pl.Series]) -> Floats:
    flags: Floats = np.concatenate([np.empty(0), *(part.cast(pl.Float64).to_numpy() for part in parts)])
    return flags


def _windows(rows: PredictionRows, how: _Scored, side: TableWindows) -> tuple[LossWindow, ...]:
    return tuple(
        LossWindow(
            start=day(side.cut.blocks[_place(window.start)]),
            labelled=len(part),
            loss=float(loss_of(how.measure, part.truth, part.score).mean()),
        )
        for window, part in windows(rows, _DAY)
        if len(part) >= _LEAST
    )


def _place(start: datetime) -> int:
    return (start - _START) // _DAY


def _harm(
    result: TableLoss, reference: PredictionRows, rows: PredictionRows, side: TableWindows, policy: PerformancePolicy
) -> TableLoss:
    """Whether the windows lose more than the reference, one after the other as a watch would have."""
    count = len(side.cut.blocks)
    horizon = max(count, 5)
    timed = side.cut.blocks[0].timed
    horizon = min(horizon, max(1, policy.look_back // policy.window)) if timed else horizon
    measure = result.measure or "brier"
    terms = harm_policy(
        policy, loss=measure, horizon=horizon, recent=min(horizon, 5), refit=False, calibration=measure != "zero_one"
    )
    task: Task = "regression" if measure == "squared_error" else "binary"
    try:
        reference_level = learn_baseline(reference, task=task, policy=terms, every=_DAY)
    except DataError as error:
        return msgspec.structs.replace(result, refused=error.message)
    watch, last = begin_monitor(reference_level, terms, alpha=policy.false_alarms), None
    for window, part in windows(rows, _DAY):
        if len(part) >= _LEAST:
            watch, last = add_window(watch, window, part)
    assert last is not None
    worst = [finding for finding in last.findings if finding.word == "worse"]
    starts = [finding.since for finding in worst if finding.since is not None]
    first = side.cut.blocks[_place(min(starts))] if starts else None
    since, begin = (None, "") if first is None else (day(first), begin_text(first))
    older = " or before" if starts and min(starts) == watch.starts[0] else ""
    return msgspec.structs.replace(
        result,
        reference=reference_level.loss,
        word=last.word,
        kind=last.kind,
        since=since,
        sentence=" ".join(
            _sentence(finding.question, finding.excess or 0.0, reference_level.loss, f"{begin}{older}")
            for finding in worst
        ),
    )


def _sentence(question: Question, excess: float, reference: float, since: str) -> str:
    size = f"{excess:.3g} ({excess / reference:.0%} of the reference's loss)"
    return f"Since {since} the model loses {size} more than {COMPARED_WITH[question]}."

"""Which rows train and which judge: in time order with a gap of the label delay, else at random."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cumulant.core import units
from cumulant.core.errors import DataError, UsageError
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.traffic_rows import DAY, TrafficRows
from cumulant.training.policy import EvaluationPolicy
from cumulant.training.row_hash import places

Index = NDArray[np.int64]

#: labels later than this share of all are rare stragglers: their rows are left out one by one instead
_DELAY_QUANTILE = 0.99
#: folds judge the last half of the training rows; the first half is always trained on
_FIRST_VALIDATION = 0.5
_LEAST_ROWS = 10
#: test rows that lie after a change, at least
_LEAST_AFTER_CHANGE = 100
#: days of test rows after a change where the declared test is a share: fewer make an interval wide
_DAYS_AFTER_CHANGE = 14
#: orders of the hashes that are tried
_SALTS = 8
_LEAST_OF_A_CLASS = 2
#: of positives, in a fold that is trained on or judges
_LEAST_POSITIVES = 5


@dataclass(frozen=True, kw_only=True)
class TrainTestSplit:
    """Rows to train on and later rows to judge with; `gap` and `cutoff` in microseconds, None at random.

    share, salt: where rows are split by their hash, those below `share` are the test.
    """

    train: TrainingSet
    test: TrainingSet
    how: str
    cutoff: int | None = None
    gap: int = 0
    left_out: int = 0
    share: float | None = None
    salt: int = 0

    def without_columns(self) -> TrainTestSplit:
        """Which rows are on which side, without their features."""
        return replace(self, train=self.train.without_columns(), test=self.test.without_columns())


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Positions of the rows trained on and of those predicted.

    reviewed: positions of rows of the same part whose label came from the review queue: scored, and never judged by.
    span: begin and end of the part in microseconds; None at random.
    """

    train: Index
    validate: Index
    text: str = field(default="")
    reviewed: Index = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    span: tuple[int, int] | None = None


def split(
    rows: TrainingSet,
    spec: EvaluationPolicy,
    *,
    seed: int = 0,
    horizon: int | None = None,
    change: int | None = None,
) -> TrainTestSplit:
    """Set the test rows aside.

    With times, the test is the last part by prediction time: a duration, or a share of rows. Training ends before
    it by the delay of labels (their 0.99 quantile), and rows whose label was still unknown at the first test
    row are left out, so that nothing is learned that could not be known then. With `horizon` (microseconds: when
    the data were seen), the test ends the delay of labels before it: of the rows after that, only those whose label
    came fast are labelled, and they are not like the others. With `change` (microseconds: since
    when the rows are of another kind), the test is shorter where needed, so that half of the time since then is trained
    on, and a share of few days is longer. Without times, rows (or whole
    groups) are drawn by the hash of what identifies them, so that no row changes sides when others are added; rows
    without an identity at random, classes in their shares.

    Raises:
        UsageError: `test` is a duration and rows have no time.
        DataError: nothing would be left to train or to judge.
    """
    if rows.at is None:
        share = _share_of(spec.test)
        return _random_split(rows, share, seed) if rows.identity is None else _hash_split(rows, share)
    ripe = ripened(rows, horizon)
    unripe, rows = int((~ripe).sum()), rows.take(ripe)
    assert rows.at is not None
    gap = label_delay(rows)
    declared = _cutoff(rows.at, spec.test)
    cutoff = declared if change is None else _after_change(rows.at, declared, change, gap, spec.test)
    test = rows.at >= cutoff
    train = known_before(rows, cutoff, gap)
    left_out = int((~test & ~train).sum()) + unripe
    _check_sides(rows, train, test, gap)
    how = f"the last {_text_of(spec.test)} by time"
    if cutoff != declared:
        which = "at most half of those since the change"
        how = f"the rows since {units.from_micros(cutoff):%Y-%m-%d %H:%M}, {which}"
    if left_out:
        how += f", after a gap of {_span(gap)} until labels were known ({left_out:,} rows)"
    return TrainTestSplit(
        train=replace(rows.take(train), traffic=_unlearned(rows, train, cutoff)),
        test=replace(rows.take(test), traffic=None),
        how=how,
        cutoff=cutoff,
        gap=gap,
        left_out=left_out,
    )


def _unlearned(rows: TrainingSet, train: NDArray[np.bool_], end: int) -> TrafficRows | None:
    """The traffic before the test: rows without a label, and those whose label came too late to be learned."""
    assert rows.at is not None
    late = rows.take((rows.at < end) & ~train)
    weight = np.ones(len(late)) if late.sampling_weight is None else late.sampling_weight
    parts = [] if rows.traffic is None else [rows.traffic.before(end)]
    if rows.task == "binary" and len(late):
        parts.append(TrafficRows(features=late.features, at=late.at, sampling_weight=weight))
    return TrafficRows.joined(parts) if parts else None


def label_delay(rows: TrainingSet) -> int:
    """Microseconds from a prediction until its label is known, for 99 of 100 rows."""
    if rows.at is None or rows.known is None:
        return 0
    return max(0, int(np.quantile(rows.known - rows.at, _DELAY_QUANTILE)))


def ripened(rows: TrainingSet, horizon: int | None) -> NDArray[np.bool_]:
    """The rows old enough at `horizon` for any label to be known, by the delay of labels in the older half."""
    everything = np.ones(len(rows), dtype=bool)
    if horizon is None or rows.at is None or rows.known is None or not len(rows):
        return everything
    older = rows.at <= np.median(rows.at)
    delay = label_delay(rows.take(older))
    return everything if delay == 0 else rows.at <= horizon - delay


def known_before(rows: TrainingSet, moment: int, gap: int) -> NDArray[np.bool_]:
    """The rows predicted at least `gap` before `moment` whose label was known then."""
    assert rows.at is not None
    before = rows.at < moment - gap if gap else rows.at < moment
    return before if rows.known is None else before & (rows.known <= moment)


def folds(rows: TrainingSet, count: int, *, seed: int = 0) -> tuple[tuple[Fold, ...], tuple[str, ...]]:
    """At most `count` folds for the search, and notes on how they were made.

    With times, the last half of the rows is cut into `count` parts; each is judged by a model of the rows before it,
    less the gap. Without, every row is judged once, by a model of the other parts. A part with too few rows
    or positives is left out; where most are, there are fewer parts.

    Raises:
        DataError: not one fold is left.
    """
    good = _most_folds(rows, count, seed)
    alone = bool(good) or rows.reviewed is None
    good = good if alone else _most_folds(replace(rows, reviewed=None), count, seed)
    if not good:
        raise DataError(
            f"{len(rows)} rows are too few for folds: each needs rows of every class to learn from and to be judged by",
            hint="take more rows, or a shorter test",
        )
    notes = [_how(rows, len(good))]
    if len(good) < count:
        notes.append(f"not {count}, since folds would have had too few rows or positives")
    if not alone:
        notes.append("folds are judged by reviewed rows too: there are too few labels from elsewhere")
    return good, tuple(notes)


def _most_folds(rows: TrainingSet, count: int, seed: int) -> tuple[Fold, ...]:
    """The sound folds of `count`, or of the largest smaller number of which half are sound; none where none are."""
    for wanted in range(count, 0 if rows.at is not None else 1, -1):
        folds = _time_folds(rows, wanted) if rows.at is not None else _random_folds(rows, wanted, seed)
        good = tuple(fold for fold in folds if _sound(rows, fold))
        if 2 * len(good) >= wanted:
            return good
    return ()


def _how(rows: TrainingSet, count: int) -> str:
    if rows.at is not None:
        gap = label_delay(rows)
        return f"{count} folds in time order" + (f" with a gap of {_span(gap)}" if gap else "")
    kind = "random" if rows.task == "regression" else "random folds with classes in their shares"
    if rows.groups is not None:
        kind = "random folds of whole groups"
    return f"rows have no time, so {count} {kind if 'folds' in kind else kind + ' folds'}"


def _time_folds(rows: TrainingSet, count: int) -> list[Fold]:
    assert rows.at is not None
    gap, ordered = label_delay(rows), np.sort(rows.at)
    places = np.linspace(_FIRST_VALIDATION * len(rows), len(rows), count + 1).astype(np.int64)
    edges = [int(ordered[place]) for place in places[:-1]] + [int(ordered[-1]) + 1]
    # What came after the last label is scored by the newest fold, which learned from nothing later.
    newest = max([edges[-1]] if rows.traffic is None else [edges[-1], rows.traffic.end])
    folds = []
    for start, end in itertools.pairwise(edges):
        validate = np.flatnonzero((rows.at >= start) & (rows.at < end))
        train = np.flatnonzero(known_before(rows, start, gap))
        text = f"{units.from_micros(start):%Y-%m-%d} to {units.from_micros(end):%Y-%m-%d}"
        span = (start, newest if end == edges[-1] else end)
        folds.append(_unasked(rows, Fold(train=train, validate=validate, text=text, span=span)))
    return folds


def _unasked(rows: TrainingSet, fold: Fold) -> Fold:
    """The fold judged without the rows that reviewers labelled: which those are depends on their scores."""
    if rows.reviewed is None:
        return fold
    reviewed = rows.reviewed[fold.validate]
    return replace(fold, validate=fold.validate[~reviewed], reviewed=fold.validate[reviewed])


def _random_folds(rows: TrainingSet, count: int, seed: int) -> list[Fold]:
    part = _parts(rows, count, seed)
    folds = [
        Fold(train=np.flatnonzero(part != number), validate=np.flatnonzero(part == number), text=f"part {number + 1}")
        for number in range(count)
    ]
    return [_unasked(rows, fold) for fold in folds]


def _parts(rows: TrainingSet, count: int, seed: int) -> NDArray[np.int64]:
    """[n] a part from 0 to `count` - 1: each class, or all groups, dealt out evenly."""
    generator, part = np.random.default_rng(seed), np.zeros(len(rows), dtype=np.int64)
    if rows.groups is not None:
        return group_parts(rows.groups, count, generator)
    strata = rows.target if rows.task != "regression" else np.zeros(len(rows))
    dealt = 0  # classes go on where the last one stopped, so that parts are even
    for value in np.unique(strata):
        places = generator.permutation(np.flatnonzero(strata == value))
        part[places] = (np.arange(len(places)) + dealt) % count
        dealt += len(places)
    return part


def group_parts(groups: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Whole groups, the largest first, each to the part that has the fewest rows."""
    sizes = np.bincount(groups)
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, place = np.zeros(count), np.zeros(len(sizes), dtype=np.int64)
    for group in order:
        place[group] = int(filled.argmin())
        filled[place[group]] += sizes[group]
    return place[groups]


def _random_split(rows: TrainingSet, share: float, seed: int) -> TrainTestSplit:
    count = max(2, round(1 / share))
    test = _parts(rows, count, seed + 1) == 0
    _check_sides(rows, ~test, test)
    kind = "whole groups" if rows.groups is not None else "rows"
    how = f"a random {1 / count:.0%} of {kind}, since rows have no time"
    return TrainTestSplit(train=rows.take(~test), test=replace(rows.take(test), traffic=None), how=how)


def _hash_split(rows: TrainingSet, share: float) -> TrainTestSplit:
    """By the first salt that leaves both sides what they need: of few rows a hash may give one side no positive."""
    assert rows.identity is not None
    for salt in range(_SALTS):
        test = places(rows.identity, salt) < share
        try:
            _check_sides(rows, ~test, test)
        except DataError:
            if salt == _SALTS - 1:
                raise
            continue
        break
    kind = "whole groups" if rows.groups is not None else "rows"
    how = f"{share:.0%} of {kind} by the hash of what identifies them, since rows have no time"
    return TrainTestSplit(train=rows.take(~test), test=rows.take(test), how=how, share=share, salt=salt)


def _check_sides(rows: TrainingSet, train: NDArray[np.bool_], test: NDArray[np.bool_], gap: int = 0) -> None:
    """`gap`: how long before the test training ends, in microseconds."""
    for side, inside in (("train", train), ("test", test)):
        if inside.sum() < _LEAST_ROWS:
            hint = "change evaluation.test, or take more rows"
            if gap and side == "train":
                hint += f": training ends {_span(gap)} before the test, so that its labels are known then"
            raise DataError(
                f"the {side} rows would be {int(inside.sum())}; at least {_LEAST_ROWS} are needed", hint=hint
            )
        if rows.task == "binary" and len(np.unique(rows.target[inside])) < 2:
            raise DataError(
                f'all {int(inside.sum())} {side} rows are of class "{rows.classes[int(rows.target[inside][0])]}"',
                hint="change evaluation.test, or take rows of a longer time",
            )


def _sound(rows: TrainingSet, fold: Fold) -> bool:
    for side in (fold.train, fold.validate):
        if len(side) < _LEAST_ROWS:
            return False
        if rows.task == "binary" and min(_class_counts(rows.target[side], 2)) < _LEAST_OF_A_CLASS:
            return False
    return rows.task != "binary" or rows.target[fold.train].sum() >= min(_LEAST_POSITIVES, rows.target.sum() / 2)


def _class_counts(target: NDArray[np.float64], classes: int) -> list[int]:
    counts: Any = np.bincount(target.astype(np.int64), minlength=classes)
    return [int(count) for count in counts]


def _cutoff(at: NDArray[np.int64], test: timedelta | float) -> int:
    """The time of the first test row."""
    if isinstance(test, timedelta):
        # the last day belongs to the test whole: a duration counts back from just after the last row
        return int(at.max()) + 1 - units.micros(test)
    return int(np.sort(at)[min(len(at) - 1, int((1 - test) * len(at)))])


def _after_change(at: NDArray[np.int64], declared: int, change: int, gap: int, test: timedelta | float) -> int:
    """The first test row, so late that half of the time since `change`, but for the gap, is trained on; as declared
    where so few rows would be left that they decide nothing. A test that is a share of rows has enough days for an
    interval, where that half has them.
    """
    middle = change + gap + (int(at.max()) - change - gap) // 2
    enough = int((at >= middle).sum()) >= _LEAST_AFTER_CHANGE
    if not enough:
        return declared
    wide = int(at.max()) - _DAYS_AFTER_CHANGE * DAY
    return max(middle, declared if isinstance(test, timedelta) else min(declared, wide))


def _share_of(test: timedelta | float) -> float:
    if isinstance(test, timedelta):
        raise UsageError(
            f"evaluation.test is {units.show_duration(test)}, but rows have no time",
            hint="write a share as 20%, or declare event_time of the source",
        )
    return min(test, 0.5)


def _text_of(test: timedelta | float) -> str:
    return units.show_duration(test) if isinstance(test, timedelta) else f"{test:.0%} of rows"


def _span(micros: int) -> str:
    """A duration rounded to what matters: `7d`, `9h30m`."""
    step = 60_000_000 if micros < 86_400_000_000 * 2 else 3_600_000_000
    return units.show_duration(timedelta(microseconds=max(step, round(micros / step) * step)))

"""Judging one trainer with one set of parameters, fold by fold."""

from __future__ import annotations

import math
import statistics as averages
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cumulant.core.servable import Input
from cumulant.statistics import Metric, Rows
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.traffic_rows import ScoredTraffic, TrafficRows
from cumulant.training.events import FoldFinished
from cumulant.training.payloads.encoding import Matrix, encode
from cumulant.training.payloads.payload import Floats
from cumulant.training.policy import ThresholdPolicy, TrainingPolicy
from cumulant.training.records import FoldSummary, State, TrialRecord
from cumulant.training.search.sampling import SEARCH_ROWS, judged, learned, sampling_weight, unjudged
from cumulant.training.splits import Fold
from cumulant.training.splits import folds as make_folds
from cumulant.training.trainers.target_means import TargetMeans, inputs_of, means_notes
from cumulant.training.trainers.trainer import Params, Problem, Trainer, TrainingSample, ValidationResult

#: all rows count as this many times those of a fold at most: what four folds leave out, and no more was measured
_MOST_GROWTH = 4 / 3

#: whether a trial with these fold scores so far is given up
GiveUp = Callable[[Sequence[float]], bool]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A judged trial; `answers` [rows] or [rows, classes] where every fold was judged.

    Of each fold they are those of its judged rows, then of the rows that are only counted.
    """

    record: TrialRecord
    answers: Floats | None
    #: (rows, rounds, seconds) of each fit
    fits: tuple[tuple[int, int, float], ...]


class CrossValidation:
    """The folds of one search with their rows encoded once. The latest fold is judged first: it is the likest to the
    time after, and a bad trial is given up on it.
    """

    def __init__(
        self,
        rows: TrainingSet,
        matrix: Matrix,
        folds: Sequence[Fold],
        problem: Problem,
        metric: Metric,
        *,
        inputs: Sequence[Input],
        means: TargetMeans,
        counted: ThresholdPolicy | None = None,
    ) -> None:
        """`inputs`: the columns of `matrix`, of which `means` makes those of `problem`.

        `counted`: the capacity or rate for which rows that judge nothing are scored too.
        """
        self.problem = problem
        self.metric = metric
        self.inputs, self.means = tuple(inputs), means
        ordered = list(reversed(folds))
        seeds = [problem.seed * 1009 + number for number in range(len(ordered))]
        self._places = [judged(fold, seed=seed) for fold, seed in zip(ordered, seeds, strict=True)]
        narrow = [
            learned(rows, matrix, fold.train, most=SEARCH_ROWS, seed=seed)
            for fold, seed in zip(ordered, seeds, strict=True)
        ]
        scored = [
            None
            if counted is None
            else unjudged(
                rows,
                fold,
                (number, len(ordered)),
                reviewed=counted.alerts is not None,
                seed=problem.seed * 1009,
            )
            for number, fold in enumerate(ordered)
        ]
        self._counted = [None if part is None else replace(part, features=pl.DataFrame()) for part in scored]
        pairs = [means.fit(part) for part in narrow]
        self._train = [train for train, _ in pairs]
        self._validate = [
            means.apply(
                TrainingSample(
                    matrix=matrix[place], target=rows.target[place], unjudged=_encoded(traffic, self.inputs)
                ),
                wider,
            )
            for place, traffic, (_, wider) in zip(self._places, scored, pairs, strict=True)
        ]
        self.summaries = tuple(
            FoldSummary(text=fold.text, train=len(train), validate=len(validate))
            for fold, train, validate in zip(ordered, self._train, self._validate, strict=True)
        )
        self._growth = len(rows) / max(averages.fmean(summary.train for summary in self.summaries), 1)
        self._spans = tuple(fold.span for fold in ordered if fold.span is not None)
        self._stands = [
            sampling_weight(rows, place) * (len(fold.validate) / max(len(place), 1))
            for fold, place in zip(ordered, self._places, strict=True)
        ]
        self._at = None if rows.at is None else [rows.at[place] for place in self._places]

    @property
    def growth(self) -> float:
        """How many times the rows that a fold learns from all rows are, within limits; 1 of folds in time order, where
        what more rounds gain was not shown.
        """
        return 1.0 if self._spans else min(self._growth, _MOST_GROWTH)

    @property
    def places(self) -> NDArray[np.int64]:
        """Positions of the judged rows, in the order of their answers."""
        return np.concatenate(self._places)

    @property
    def parts(self) -> NDArray[np.int64]:
        """The fold of each judged row."""
        return np.repeat(np.arange(len(self._places)), [len(place) for place in self._places])

    @property
    def judged_by(self) -> list[slice]:
        """The judged rows of each fold."""
        edges = np.cumsum([0, *(len(place) for place in self._places)]).tolist()
        return [slice(begin, end) for begin, end in pairwise(edges)]

    @property
    def counted(self) -> tuple[int, ...]:
        """How many rows of each fold are answered only to be counted."""
        return tuple(0 if traffic is None else len(traffic) for traffic in self._counted)

    @property
    def _is_judged(self) -> NDArray[np.bool_]:
        """[answers] whether each is of a judged row."""
        sizes = [size for pair in zip(map(len, self._places), self.counted, strict=True) for size in pair]
        return np.repeat(np.tile([True, False], len(self._places)), sizes)

    def judged(self, answers: Floats) -> Floats:
        """The answers of the judged rows, in the order of `places`."""
        return answers[self._is_judged]

    def traffic(self, scores: Floats) -> ScoredTraffic:
        """All rows of the folds with their `scores` [answers], as a capacity or a rate counts them."""
        empty = TrafficRows.none()
        others = [traffic or empty for traffic in self._counted]
        pairs = list(zip(self._stands, (others_of_fold.sampling_weight for others_of_fold in others), strict=True))
        at = None
        if self._at is not None:
            none = np.zeros(0, dtype=np.int64)
            times = zip(
                self._at,
                (none if others_of_fold.at is None else others_of_fold.at for others_of_fold in others),
                strict=True,
            )
            at = np.concatenate([part for pair in times for part in pair])
        return ScoredTraffic(
            scores=scores,
            sampling_weight=np.concatenate([part for pair in pairs for part in pair]),
            at=at,
            spans=self._spans,
            unlabelled=round(sum(float(others_of_fold.sampling_weight.sum()) for others_of_fold in others)),
        )

    def run(
        self,
        trainer: Trainer,
        params: Params,
        *,
        number: int,
        tuned: bool = False,
        give_up: GiveUp | None = None,
        seconds_left: Callable[[], float] | None = None,
        must_finish: bool = False,
        on_fold: Callable[[FoldFinished], None] | None = None,
    ) -> Outcome:
        """Judge `params`, `tuned` or not as `TrialRecord` says. When the time is over the trial is cut, unless it
        `must_finish`: then the time left is shared out among the folds, and each ends with the rounds it has.

        Folds run beside each other, but are looked at in their order, so that the record does not depend on how
        many cores there are. `on_fold` is called in that order too, but for the last: the trial then ends.
        """
        begin, state, done = time.monotonic(), "complete", list[_Done]()
        with _Race(self, trainer, params, seconds_left or self.problem.seconds_left, share_out=must_finish) as race:
            for fold_result in race:
                if fold_result.judged.cut and not must_finish:
                    state = "cut"
                    break
                done.append(fold_result)
                hopeless = give_up is not None and give_up([each.score for each in done])
                if hopeless and len(done) < len(self._train):
                    state = "pruned"
                    break
                if on_fold is not None and len(done) < len(self._train):
                    on_fold(
                        FoldFinished(
                            number=number,
                            trainer=trainer.name,
                            scores=tuple(each.score for each in done),
                            folds=len(self._train),
                            seconds=round(time.monotonic() - begin, 3),
                            params=dict(params),
                        )
                    )
        record = TrialRecord(
            number=number,
            trainer=trainer.name,
            params=dict(params),
            tuned=tuned,
            state=_state(state),
            score=averages.fmean(fold_result.score for fold_result in done) if state == "complete" else None,
            scores=tuple(fold_result.score for fold_result in done),
            rounds=tuple(fold_result.judged.rounds for fold_result in done),
            seconds=round(time.monotonic() - begin, 3),
            shortened=state == "complete" and any(fold_result.judged.cut for fold_result in done),
        )
        answers = np.concatenate([fold_result.judged.answers for fold_result in done]) if state == "complete" else None
        return Outcome(
            record=record,
            answers=answers,
            fits=tuple((fold_result.rows, fold_result.judged.rounds, fold_result.seconds) for fold_result in done),
        )

    def judge_fold(
        self,
        fold: int,
        trainer: Trainer,
        params: Params,
        seconds_left: Callable[[], float],
        *,
        must_start: bool = False,
    ) -> _Done:
        """One fold of one trial."""
        train, validate = self._train[fold], self._validate[fold]
        start = time.monotonic()
        judged = ValidationResult(answers=np.zeros(0), cut=True)
        if must_start or seconds_left() > 0:
            judged = trainer.judge(replace(self.problem, seconds_left=seconds_left), params, train, validate)
        own = judged.answers[: len(validate)]
        score = math.nan if not len(own) else self.score(own, validate.target)
        return _Done(judged=judged, score=score, rows=len(train), seconds=time.monotonic() - start)

    def sample(self, fold: int) -> tuple[TrainingSample, TrainingSample]:
        """What a fold learns from, and the rows it judges by."""
        return self._train[fold], self._validate[fold]

    @property
    def count(self) -> int:
        return len(self._train)

    @property
    def left_out(self) -> range:
        """The folds that the others can judge without."""
        return range(self.count if self.count > 1 else 0)

    def score(self, answers: Floats, target: Floats) -> float:
        return self.metric.value(Rows(truth=target, prediction=answers))

    def mean_score(self, answers: Floats, *, without: int | None = None) -> float:
        """The mean over folds, but for `without`, of the metric of out-of-fold `answers`."""
        return self.mean_judged(self.judged(answers), without=without)

    def mean_judged(self, answers: Floats, *, without: int | None = None) -> float:
        """`mean_score` of answers of the judged rows alone."""
        return averages.fmean(
            self.score(answers[own], validate.target)
            for fold, (own, validate) in enumerate(zip(self.judged_by, self._validate, strict=True))
            if fold != without
        )


def prepare_folds(
    rows: TrainingSet, spec: TrainingPolicy, followed: Metric, *, means_of: frozenset[str] | None = None
) -> tuple[CrossValidation, Matrix, tuple[str, ...]]:
    """The folds that every trial is judged on, all rows encoded, and notes on the folds.

    means_of: the texts that get means of the target; None: the rows decide.

    Raises:
        DataError: too few rows for folds.
    """
    inputs, means = inputs_of(rows, spec, means=means_of)
    matrix = encode(rows.features, inputs)
    problem = Problem(
        task=rows.task,
        classes=rows.classes,
        inputs=means.inputs(inputs),
        metric=followed.name,
        seed=spec.seed,
        threads=max(1, spec.cores // spec.jobs),
    )
    folds, notes = make_folds(rows, spec.folds, seed=spec.seed)
    counted = spec.threshold if rows.task == "binary" and isinstance(spec.threshold, ThresholdPolicy) else None
    return (
        CrossValidation(rows, matrix, folds, problem, followed, inputs=inputs, means=means, counted=counted),
        matrix,
        (*notes, *means_notes(rows, inputs, spec)),
    )


def _encoded(traffic: TrafficRows | None, inputs: Sequence[Input]) -> Matrix | None:
    return None if traffic is None or not len(traffic) else encode(traffic.features, inputs)


@dataclass(frozen=True, kw_only=True)
class _Done:
    judged: ValidationResult
    score: float
    rows: int
    seconds: float


class _Race:
    """The folds of one trial on several cores, given in their order; leaving early stops those that run."""

    def __init__(
        self,
        folds: CrossValidation,
        trainer: Trainer,
        params: Params,
        seconds_left: Callable[[], float],
        *,
        share_out: bool,
    ) -> None:
        workers = min(folds.problem.threads if trainer.parallel else 1, folds.count)
        self._pool = ThreadPoolExecutor(workers)
        self._over = False

        def own(fold: int) -> Callable[[], float]:
            # called when the fold starts: its share of the time left is one of the rounds of folds still to come
            waves = math.ceil((folds.count - fold) / workers)
            return _share_of(self._clock(seconds_left), 1 / waves) if share_out else self._clock(seconds_left)

        self._futures = [
            self._pool.submit(
                lambda number: folds.judge_fold(number, trainer, params, own(number), must_start=share_out), fold
            )
            for fold in range(folds.count)
        ]

    def _clock(self, seconds_left: Callable[[], float]) -> Callable[[], float]:
        return lambda: 0.0 if self._over else seconds_left()

    def __iter__(self) -> Iterator[_Done]:
        for future in self._futures:
            yield future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._pool.shutdown(cancel_futures=True)


def _share_of(seconds_left: Callable[[], float], share: float) -> Callable[[], float]:
    """A clock that ends when `share` of the time left now is over."""
    others = seconds_left() * (1 - share)
    return seconds_left if others == float("inf") or share == 1 else lambda: seconds_left() - others


def _state(text: str) -> State:
    return "pruned" if text == "pruned" else "cut" if text == "cut" else "complete"

"""A weighted average of trainers: its weights, and whether it is better than the best trainer alone.

Weights come from greedy ensemble selection with replacement (Caruana et al. 2004, Ensemble Selection from Libraries of
Models) on out-of-fold answers: probabilities, or values of a regression. A search flatters its trainer on the rows that
judge, the longer the more (Cawley and Talbot 2010, On Over-fitting in Model Selection and Subsequent Selection Bias in
Performance Evaluation): by tuned answers the trainer with most trials would have nearly all the weight. So the weights
are of untuned trials, the same few of each trainer; they are then given to the best trials of each. The gain is that of
untuned trials, or of all where that is surer. Weights that are judged by the rows they were fitted on always seem to
help: a gain takes each fold's answers of both by what the other folds chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cumulant.statistics import Estimate, Metric, Rows, cluster_codes, difference
from cumulant.training.dataset import TrainingSet
from cumulant.training.evaluation.traffic_rows import DAY
from cumulant.training.payloads.payload import Floats, average
from cumulant.training.search.choices import BlendChoice, ModelChoice
from cumulant.training.search.cross_validation import CrossValidation
from cumulant.training.trainers.trainer import Trainer
from cumulant.training.trainers.user_trainer import UserTrainer

#: choices made one after the other, at most: no weight is below one by this number
_STEPS = 20
#: rows of a fold that weights are fitted on and the gain is measured on, and draws of its interval: of 400,000 rows
#: 1,000 draws of an average precision take longer than many a search
_FITTED_ROWS, _RESAMPLES = 25_000, 300


def blendable(trainer: Trainer) -> bool:
    """Whether models of `trainer` can be a part of one graph. The ONNX form of a user's model or of a scikit-learn
    estimator has operators of other versions, which one graph cannot hold; and a constant adds no information.
    """
    return trainer.name != "naive" and not isinstance(trainer, UserTrainer)


class Candidates(NamedTuple):
    """The choice of each trainer among some trials: by all folds, and `crossed`, of each fold by the other folds."""

    choices: Sequence[ModelChoice]
    crossed: Iterable[Sequence[ModelChoice]]


def blend(
    best: Sequence[ModelChoice], candidates: Sequence[Candidates], folds: CrossValidation, rows: TrainingSet
) -> BlendChoice | None:
    """The blend of those of `best`, one of each trainer, that can be part of one; None where one has all the weight.

    candidates: among the untuned trials, which give the weights, and where there are others among all. rows: those of
    the folds.
    """
    weighed = [choice for choice in _ranked(candidates[0].choices, folds) if blendable(choice.trainer)]
    if len(weighed) < 2 or folds.count < 2:
        return None
    weights = _Weighing(weighed, folds, rows).weights(range(folds.count))
    if np.count_nonzero(weights) < 2:
        return None
    by_name = {choice.name: choice for choice in best}
    order = [place for place in np.argsort(-weights, kind="stable") if weights[place] > 0]
    chosen = [by_name[weighed[place].name] for place in order]
    shares = tuple(float(weights[place]) for place in order)
    gains = []
    for each in candidates:
        averaged, alone, places = _judged_by_others(each.crossed, folds, rows)
        gains.append(_gain(folds.metric, averaged[places], alone[places], rows.take(folds.places[places])))
    return BlendChoice(
        members=tuple(chosen),
        weights=shares,
        answers=average([member.answers for member in chosen], shares),
        score=folds.mean_judged(averaged),
        gain=max(gains, key=_lower_end),
        best=_ranked(best, folds)[0].name,
    )


def _ranked(choices: Sequence[ModelChoice], folds: CrossValidation) -> list[ModelChoice]:
    """The best first."""
    return sorted(choices, key=lambda choice: choice.score, reverse=folds.metric.larger_is_better)


def _judged_by_others(
    crossed: Iterable[Sequence[ModelChoice]], folds: CrossValidation, rows: TrainingSet
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Answers to each fold of the blend and of the best trainer that the other folds choose, and the positions of the
    rows that the gain is measured on.
    """
    pairs, measured = [], []
    for fold, (own, choices) in enumerate(zip(folds.judged_by, crossed, strict=True)):
        ranked = _ranked(choices, folds)
        members = [choice for choice in ranked if blendable(choice.trainer)]
        weighing = _Weighing(members, folds, rows)
        weights = weighing.weights([other for other in range(folds.count) if other != fold])
        averaged = average([folds.judged(member.answers)[own] for member in members], weights.tolist())
        pairs.append((averaged, folds.judged(ranked[0].answers)[own]))
        measured.append(weighing.places(fold))
    averaged, alone = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return averaged, alone, np.concatenate(measured)


class _Weighing:
    """Answers of several members to the judged rows, and the scores of their averages fold by fold."""

    def __init__(self, members: Sequence[ModelChoice], folds: CrossValidation, rows: TrainingSet) -> None:
        self._answers, self._folds = [folds.judged(member.answers) for member in members], folds
        self._sign = 1 if folds.metric.larger_is_better else -1
        self._truth = rows.target[folds.places]
        places = [np.arange(own.start, own.stop) for own in folds.judged_by]
        generator = np.random.default_rng(folds.problem.seed)
        self._fitted = [
            place if len(place) <= _FITTED_ROWS else np.sort(generator.choice(place, size=_FITTED_ROWS, replace=False))
            for place in places
        ]
        self._scores: dict[tuple[int, tuple[float, ...]], float] = {}

    def places(self, fold: int) -> NDArray[np.int64]:
        """Positions of the judged rows of a fold that weights are fitted on."""
        return self._fitted[fold]

    def weights(self, parts: Sequence[int]) -> Floats:
        """[members] of sum 1: the best that a greedy selection comes by, as scored on the folds `parts`."""
        counts = np.zeros(len(self._answers), dtype=np.int64)
        best, best_score = counts, -np.inf
        for _ in range(_STEPS):
            tried = [counts + unit for unit in np.eye(len(counts), dtype=np.int64)]
            scores = [self._mean(candidate, parts) for candidate in tried]
            counts = tried[int(np.argmax(scores))]
            if max(scores) > best_score:
                best, best_score = counts, max(scores)
        return np.asarray(best / max(int(best.sum()), 1), dtype=np.float64)

    def _mean(self, counts: NDArray[np.int64], parts: Sequence[int]) -> float:
        """The larger the better; a metric that a fold does not define (no positive) is passed over."""
        scores = [self._fold_score(fold, counts) for fold in parts]
        defined = [score for score in scores if not np.isnan(score)]
        return float(np.mean(defined)) if defined else -np.inf

    def _fold_score(self, fold: int, counts: NDArray[np.int64]) -> float:
        weights = tuple((counts / counts.sum()).tolist())
        if (fold, weights) not in self._scores:
            place = self._fitted[fold]
            answers = average([member[place] for member in self._answers], weights)
            self._scores[fold, weights] = self._sign * self._folds.score(answers, self._truth[place])
        return self._scores[fold, weights]


def _gain(metric: Metric, ours: Floats, theirs: Floats, rows: TrainingSet) -> Estimate:
    """How much better `ours` is. Of days and groups of rows, those count that leave more doubt."""
    clusters: list[NDArray[np.int64] | None] = []
    if rows.at is not None:
        clusters.append(cluster_codes(rows.at // DAY))
    if rows.groups is not None:
        clusters.append(cluster_codes(rows.groups))
    estimates = [
        difference(
            metric,
            Rows(truth=rows.target, prediction=ours, cluster=codes),
            Rows(truth=rows.target, prediction=theirs, cluster=codes),
            resamples=_RESAMPLES,
        )
        for codes in clusters or [None]
    ]
    return min(estimates, key=_lower_end)


def _lower_end(estimate: Estimate) -> float:
    return -np.inf if estimate.low is None else estimate.low

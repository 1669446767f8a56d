"""What a search chooses: the best configuration of each trainer, or a weighted average of several trainers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cumulant.statistics import Estimate
from cumulant.training.payloads.payload import Floats
from cumulant.training.records import BLEND, BlendMember, BlendSummary, FittedBooster, TrialRecord
from cumulant.training.search.cross_validation import CrossValidation
from cumulant.training.search.trial_journal import TrialJournal
from cumulant.training.trainers.trainer import Trainer

#: an average of more trials is taken while its score is worse by no more than this part: the best trial alone is the
#: one that the rows which judge favoured most, and another draw of rows would favour another
_ALIKE = 0.002


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What goes into the model: trials whose answers are averaged, and their out-of-fold answers and score."""

    trainer: Trainer
    members: tuple[TrialRecord, ...]
    answers: Floats
    score: float

    @property
    def name(self) -> str:
        return self.trainer.name


@dataclass(frozen=True, kw_only=True)
class BlendChoice:
    """Choices of several trainers, averaged by `weights` (above 0, of sum 1), the largest weight first.

    answers: out of fold, by `weights`. score, and gain over one trainer alone: of answers to each fold by trials,
    weights and a trainer that the other folds chose; the gain among untuned trials or among all. best: the trainer that
    is best alone.
    """

    members: tuple[ModelChoice, ...]
    weights: tuple[float, ...]
    answers: Floats
    score: float
    gain: Estimate
    best: str

    @property
    def name(self) -> str:
        return BLEND

    @property
    def better(self) -> bool:
        """Whether it is better than its best member beyond noise."""
        return self.gain.low is not None and self.gain.low > 0

    def summary(self, boosters: Mapping[str, Sequence[FittedBooster]], *, taken: bool) -> BlendSummary:
        """`boosters`: those fitted, by trainer."""
        return BlendSummary(
            taken=taken,
            members=tuple(
                BlendMember(
                    trainer=member.name,
                    weight=weight,
                    score=member.score,
                    params=member.members[0].params,
                    chosen=tuple(record.number for record in member.members),
                    boosters=tuple(boosters.get(member.name, ())) if taken else (),
                )
                for member, weight in zip(self.members, self.weights, strict=True)
            ),
            score=self.score,
            gain=self.gain,
            best=self.best,
        )


def best_of(
    trainer: Trainer,
    records: Sequence[TrialRecord],
    journal: TrialJournal,
    folds: CrossValidation,
    *,
    most: int,
    without: int | None = None,
) -> ModelChoice | None:
    """The best trial of a trainer, or of a searched one the average of as many of its best few as are no worse out of
    fold than fewer of them; `without`: a fold by which nothing is chosen, nor counted in the score.
    """
    larger = folds.metric.larger_is_better
    ranked = ranking(records, trainer.name, larger_is_better=larger, without=without)
    sign = 1 if larger else -1
    averaged: list[ModelChoice] = []
    total: Floats | None = None
    for count, record in enumerate(ranked[: most if trainer.searched else 1], start=1):
        answers = journal.answers(record.number)
        total = answers if total is None else total + answers
        mean = total / count
        score = folds.mean_score(mean, without=without)
        averaged.append(ModelChoice(trainer=trainer, members=tuple(ranked[:count]), answers=mean, score=score))
    if not averaged:
        return None
    best = max(sign * choice.score for choice in averaged)
    alike = (choice for choice in reversed(averaged) if sign * choice.score >= best - _ALIKE * abs(best))
    return next(alike, averaged[0])


def ranking(
    records: Sequence[TrialRecord], trainer: str, *, larger_is_better: bool, without: int | None = None
) -> list[TrialRecord]:
    """The finished trials of a trainer, the best first, the earlier among equals; `without`: a fold that is not
    counted.
    """
    finished = [
        (_mean(record, without), record) for record in records if record.trainer == trainer and record.score is not None
    ]
    sign = -1 if larger_is_better else 1
    return [record for _, record in sorted(finished, key=lambda pair: (sign * pair[0], pair[1].number))]


def _mean(record: TrialRecord, without: int | None) -> float:
    return statistics.fmean(score for fold, score in enumerate(record.scores) if fold != without)


def untuned(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The finished trials that are not tuned; of a trainer that has none, all of its finished trials."""
    finished = [record for record in records if record.score is not None]
    plain = {record.trainer for record in finished if not record.tuned}
    return [record for record in finished if not record.tuned or record.trainer not in plain]

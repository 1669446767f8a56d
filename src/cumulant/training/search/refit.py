"""A finished search's model made again: the trials that were chosen, the boosters that were fitted, and no clock.

What the clock decided in the search (which trials ended, after how many rounds, which boosters were left out, how
many rows they had) stands in its records. So nothing is searched here, and the model comes out equal on a machine of
any speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np

from cumulant.core.errors import IntegrityError
from cumulant.core.progress import Progress, silent
from cumulant.training.dataset import TrainingSet
from cumulant.training.model import FittedModel
from cumulant.training.payloads.payload import Floats, average
from cumulant.training.policy import TrainingPolicy
from cumulant.training.records import BlendMember, FittedBooster, TrainingSummary, TrialRecord
from cumulant.training.search.budget import SearchBudget
from cumulant.training.search.choices import BlendChoice, ModelChoice
from cumulant.training.search.cross_validation import CrossValidation, prepare_folds
from cumulant.training.search.final_model import Finisher
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.trainers.quiet import one_thread_a_product, quiet
from cumulant.training.trainers.trainer import Searched, Trainer
from cumulant.training.trainers.trainer_lookup import make_trainer


def refit(
    rows: TrainingSet,
    spec: TrainingPolicy,
    summary: TrainingSummary,
    trials: Sequence[TrialRecord],
    *,
    root: Path | None = None,
    progress: Progress = silent,
) -> FittedModel:
    """The model of the search that left `summary` and `trials`, fitted again on the same rows with the same settings.

    root: where a user's trainer files are.

    Raises:
        IntegrityError: a trial that the summary names is not among `trials`.
        UsageError, DataError, UserCodeError: as `search`.
    """
    parts: Sequence[BlendMember | TrainingSummary] = summary.parts or [summary]
    trainers = [make_trainer(part.trainer, root or Path()) for part in parts]
    chosen = [trials_of(part.chosen, part.boosters, trials) for part in parts]
    folds, matrix, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
    with one_thread_a_product(), quiet():
        choices = [_choice(*pair, folds, progress=progress) for pair in zip(trainers, chosen, strict=True)]
        progress(f"final fit of {summary.trainer}", 0.95)
        finisher = Finisher(rows, matrix, folds, spec=spec, budget=SearchBudget.of(None), fits={})
        boosters = {part.trainer: part.boosters for part in parts}
        return finisher.model(combined(choices, summary), boosters=boosters)[0]


def combined(choices: Sequence[ModelChoice], summary: TrainingSummary) -> ModelChoice | BlendChoice:
    """The blend of `choices` as it was recorded, whose weights are not fitted again; or the only choice."""
    blend = summary.blend
    if blend is None or not blend.taken:
        return choices[0]
    weights = tuple(member.weight for member in blend.members)
    return BlendChoice(
        members=tuple(choices),
        weights=weights,
        answers=average([member.answers for member in choices], weights),
        score=blend.score,
        gain=blend.gain,
        best=blend.best,
    )


def trials_of(
    chosen: Sequence[int], boosters: Sequence[FittedBooster], trials: Sequence[TrialRecord]
) -> tuple[TrialRecord, ...]:
    """The trials `chosen`, of which `boosters` were fitted too.

    Raises:
        IntegrityError: one of them is not among `trials`.
    """
    known = {record.number: record for record in trials}
    absent = sorted({*chosen, *(booster.trial for booster in boosters)} - known.keys())
    if absent:
        raise IntegrityError(
            f"the record of this training lacks trial {absent[0]}, which the model was made of",
            subject=f"trial {absent[0]}",
            hint="the journal was changed: restore it from a copy, or train again",
        )
    return tuple(known[number] for number in chosen)


def _choice(
    trainer: Trainer, members: tuple[TrialRecord, ...], folds: CrossValidation, *, progress: Progress
) -> ModelChoice:
    """The trials with their averaged out-of-fold answers, in the precision in which a search keeps them."""
    total: Floats | None = None
    for number, record in enumerate(members):
        progress(f"trial {record.number} again", 0.9 * number / len(members))
        answers = _answers(trainer, record, folds).astype(np.float32).astype(np.float64)
        total = answers if total is None else total + answers
    assert total is not None
    return ModelChoice(trainer=trainer, members=members, answers=total / len(members), score=math.nan)


def _answers(trainer: Trainer, record: TrialRecord, folds: CrossValidation) -> Floats:
    if not trainer.searched:
        outcome = folds.run(trainer, record.params, number=record.number, must_finish=True)
        assert outcome.answers is not None
        return outcome.answers
    booster = cast("Searched", trainer)

    def fold(place: int) -> Floats:
        return booster.answers_again(folds.problem, record.params, *folds.sample(place), rounds=record.rounds[place])

    with ThreadPoolExecutor(min(folds.problem.threads, folds.count)) as pool:
        return np.concatenate(list(pool.map(fold, range(folds.count))))

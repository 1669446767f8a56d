"""A configuration that was chosen and measured, fitted again on more rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from cumulant.core.progress import Progress, silent
from cumulant.training.dataset import TrainingSet
from cumulant.training.model import FittedModel
from cumulant.training.policy import TrainingPolicy
from cumulant.training.records import BlendMember, FittedBooster, TrainingSummary, TrialRecord
from cumulant.training.search.budget import SearchBudget
from cumulant.training.search.choices import ModelChoice
from cumulant.training.search.cross_validation import prepare_folds
from cumulant.training.search.final_model import Finisher
from cumulant.training.search.refit import combined, trials_of
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.trainers.quiet import one_thread_a_product, quiet
from cumulant.training.trainers.target_means import with_means
from cumulant.training.trainers.trainer_lookup import make_trainer


def fit_all(
    model: FittedModel,
    rows: TrainingSet,
    spec: TrainingPolicy,
    summary: TrainingSummary,
    trials: Sequence[TrialRecord],
    *,
    root: Path | None = None,
    progress: Progress = silent,
) -> FittedModel:
    """The configuration of `model` fitted on `rows`: parameters, rounds, seeds and weights are those of the search that
    left `summary` and `trials`; calibration, threshold and the texts with means of the target are those of `model`.

    root: where a user's trainer files are. There is no clock: it takes about as long as the fit of `model`.

    Raises:
        IntegrityError: a trial that the summary names is not among `trials`.
        UsageError, DataError, UserCodeError: as `search`.
    """
    parts: Sequence[BlendMember | TrainingSummary] = summary.parts or [summary]
    choices = [
        ModelChoice(
            trainer=make_trainer(part.trainer, root or Path()),
            members=trials_of(part.chosen, part.boosters, trials),
            answers=np.zeros(0),
            score=math.nan,
        )
        for part in parts
    ]
    tested = with_means(model.card.inputs)
    folds, matrix, _ = prepare_folds(rows, spec, searched_metric(spec, rows), means_of=tested)
    boosters = {part.trainer: [_more(booster, summary, rows) for booster in part.boosters] for part in parts}
    finisher = Finisher(rows, matrix, folds, spec=spec, budget=SearchBudget.of(None), fits={})
    with one_thread_a_product(), quiet():
        progress(f"fit of {summary.trainer} on all rows", 0.0)
        payload, importance = finisher.fit(combined(choices, summary), boosters)
    card = msgspec.structs.replace(model.card, kind=payload.kind, inputs=folds.inputs, importance=importance)
    return FittedModel(card, payload)


def _more(booster: FittedBooster, summary: TrainingSummary, rows: TrainingSet) -> FittedBooster:
    """The booster on all rows, unless time had left it fewer than there were."""
    return msgspec.structs.replace(booster, rows=len(rows) if booster.rows == summary.rows else booster.rows)

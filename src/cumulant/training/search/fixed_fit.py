"""One fit with fixed parameters: no search, no folds, no calibration. What a replay of history does again and again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cumulant.training.dataset import TrainingSet
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.encoding import encode
from cumulant.training.payloads.widened import widened
from cumulant.training.policy import TrainingPolicy
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.spec import Parameter
from cumulant.training.trainers.baseline import Naive
from cumulant.training.trainers.quiet import one_thread_a_product, quiet
from cumulant.training.trainers.target_means import inputs_of
from cumulant.training.trainers.trainer import Problem, TrainingSample
from cumulant.training.trainers.trainer_lookup import make_trainer


def fit_once(
    rows: TrainingSet, spec: TrainingPolicy, trainer: str, params: Mapping[str, Parameter], *, root: Path | None = None
) -> FittedModel:
    """`trainer` with `params` on all `rows`, by their weights.

    Values of texts and centres of numbers are learned from these rows alone. Rows of one class only give the constant
    answer: no trainer can tell apart what it has not seen.

    Args:
        rows: what is learned from.
        spec: target, metric and seed.
        trainer: its name, as in `training.trainers`.
        params: its parameters; of LightGBM also `rounds`.
        root: where a user's trainer files are.

    Raises:
        UsageError: there is no such trainer or metric.
        UserCodeError: a user's trainer raised.
    """
    inputs, means = inputs_of(rows, spec)
    wide, widening = means.fit(TrainingSample.of(rows, encode(rows.features, inputs)))
    problem = Problem(
        task=rows.task,
        classes=rows.classes,
        inputs=means.inputs(inputs),
        metric=searched_metric(spec, rows).name,
        seed=spec.seed,
    )
    alone = rows.task == "binary" and rows.rate in (0.0, 1.0)
    chosen = Naive() if alone else make_trainer(trainer, root or Path())
    with one_thread_a_product(), quiet():
        payload = widened(chosen.fit(problem, params, wide).payload, widening)
    card = ModelCard(
        kind=payload.kind,
        trainer=chosen.name,
        task=rows.task,
        classes=rows.classes,
        inputs=inputs,
        params=dict(params),
    )
    return FittedModel(card, payload)

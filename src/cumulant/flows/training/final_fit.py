"""The step `final fit`: the chosen configuration fitted on all rows, those of the test included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.units import from_micros
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.flows.registry.version_servable import open_servable
from cumulant.flows.training.fitted import FinalFit, Fitted
from cumulant.flows.training.search_step import all_rows, load_model, sample_training_rows, store_model
from cumulant.flows.training.training_identity import work_from_json

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.registry.model_record import ModelRecord
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.model import FittedModel
    from cumulant.training.payloads.payload import Floats


def final_fit(context: Context, work: TrainingWork, fitted: Fitted) -> Fitted:
    """`fitted` with the model that learned from all rows, where `training.final_fit` asks for it; it comes after the
    evaluation, which is of the model that did not.
    """
    if work.training.final_fit == "train":
        return fitted
    objects = context.project.objects()

    def stands(result: Mapping[str, object]) -> bool:
        return objects.find(msgspec.convert(result, FinalFit).model.key) is not None

    outcome = context.step(
        "final fit",
        {**work.inputs, "model": fitted.model.key},
        lambda: _fit(context, work, fitted),
        function=StepFunction(
            f"{__name__}:{run_final_fit.__name__}", {"work": work.to_json(), "fitted": msgspec.to_builtins(fitted)}
        ),
        verify=stands,
    )
    return msgspec.structs.replace(fitted, final=msgspec.convert(outcome.result, FinalFit))


def run_final_fit(context: Context, *, work: object, fitted: object) -> dict[str, object]:
    """The step in a process of its own: a `FinalFit`."""
    return _fit(context, work_from_json(context.project, work), msgspec.convert(fitted, Fitted))


def _fit(context: Context, work: TrainingWork, fitted: Fitted) -> dict[str, object]:
    rows = all_rows(context, work)
    model = fit_on_all_rows(context, work, fitted, load_model(context.project, fitted.model), rows)
    learned_to = None if rows.at is None else from_micros(int(rows.at.max()))
    final = FinalFit(model=store_model(context, model), rows=len(rows), learned_to=learned_to)
    return msgspec.to_builtins(final)  # type: ignore[no-any-return]


def fit_on_all_rows(
    context: Context, work: TrainingWork, fitted: Fitted, model: FittedModel, rows: TrainingSet
) -> FittedModel:
    """The configuration of `model` on `rows`."""
    from cumulant.training.search.final_fit import fit_all

    return fit_all(
        model,
        sample_training_rows(rows, work),
        work.training,
        fitted.summary,
        fitted.trials,
        root=context.project.root,
        progress=context.progress,
    )


def held_out_scores(project: Project, version: ModelVersion, record: ModelRecord, test: TrainingSet) -> Floats:
    """Scores of the version's test rows. Where it learned from them, those of the same configuration that did not: of
    rows that a model knows, its scores are surer and its errors smaller than of others.
    """
    if record.fitted.final is not None:
        return load_model(project, record.fitted.model).predict_frame(test.features)
    from cumulant.servable.scorer import Scorer

    with open_servable(project, version) as folder:
        scorer = Scorer(folder)
    import numpy as np  # what is only read of a version needs none of it

    return np.asarray(scorer.score({name: test.features[name].to_list() for name in scorer.features}))

"""The flow `evaluate`: a registered model on the test rows of today's data, and the gate's verdict."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import RefusedError
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.registry.champion_scores import ModelAnswers, model_answers
from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.opponents import margin_reference, opponents_of
from cumulant.flows.training.evaluation import champion_version, compare_answers
from cumulant.flows.training.evaluation_record import EVALUATION, EvaluateResult, Judgement
from cumulant.flows.training.search_step import rows_of
from cumulant.flows.training.tested_model import tested_model
from cumulant.flows.training.train import work_of
from cumulant.flows.training.unseen_rows import LEAST_UNSEEN, unseen_rows
from cumulant.flows.training.window_uses import record_use, reuse_of
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.training.model import FittedModel
    from cumulant.training.splits import TrainTestSplit


@verb("model.evaluate")
def evaluate(
    project: Project,
    uri: str,
    *,
    principal: Principal,
    as_of: datetime | None = None,
    progress: Progress = silent,
) -> EvaluateResult:
    """Judge a registered version on the last rows by today's data and the project's evaluation section.

    Raises:
        NotFoundError: no such version.
        RefusedError: it cannot answer today's rows (columns that it reads are gone).
    """
    settings: dict[str, object] = {"model": uri, "as_of": as_of and as_of.isoformat()}
    with open_run(project, "evaluate", principal=principal, progress=progress, settings=settings) as context:
        version = project.registry().resolve(uri)
        snapshots, _ = snapshots_of(context)
        task = resolve_task(project, snapshots)
        table = feature_set(context, task, snapshots, as_of=as_of)
        work = work_of(project, task, snapshots, table, as_of=as_of, quick=False, trials=None, time=None)
        judgement = _judge(context, work, version)
        result = EvaluateResult(run=context.run, model=version, judgement=judgement, as_of=as_of)
        with context.transaction() as transaction:
            transaction.put(EVALUATION, context.run, msgspec.to_builtins(result))
            if judgement.use is not None:
                record_use(transaction, context, work, judgement.use)
        context.ledger.verdict = judgement.word
        return result


def _judge(context: Context, work: TrainingWork, version: ModelVersion) -> Judgement:
    from cumulant.training.search.search import search

    record = find_record(context.project, version)
    split = rows_of(context, work)
    model, fit_notes = _tested_model(context, work, split, version)
    split, doubt, notes = _unseen_split(context, work, split, version, tested=model is not None)
    context.progress("evaluate", 0.1)
    candidate, more = model_answers(context, work, version, split.test, tested=model)
    if candidate is None:
        raise RefusedError(more[0], subject=version.uri, hint="train again: `cumulant train`")
    number = champion_version(context)
    other = number not in (None, version.version)
    champion = context.project.registry().resolve(f"{version.name}/{number}") if other else None
    before = None if champion is None else margin_reference(context.project, champion)
    if before is not None and before.version == version.version:
        before = None
    refitted = None if record is None or model is None else record.fitted.split
    opponents, others = opponents_of(context, work, champion, before, split.test, refitted=refitted)
    # Today's baseline: a search among no trainers but the naive one.
    alone = search(split.train, msgspec.structs.replace(work.training, trainers=["naive"]))
    judgement = compare_answers(
        context,
        split.test,
        work.evaluation,
        candidate=candidate,
        naive=ModelAnswers(alone.naive.predict_frame(split.test.features), alone.naive.threshold),
        opponents=opponents,
        main=alone.summary.metric,
        reuse=reuse_of(context, work, split, version.uri if record is None else record.fitted.model.key),
        doubt=doubt,
        notes=(*fit_notes, *notes, *more, *others),
    )
    return msgspec.structs.replace(judgement, tested=model is not None)


def _tested_model(
    context: Context, work: TrainingWork, split: TrainTestSplit, version: ModelVersion
) -> tuple[FittedModel | None, tuple[str, ...]]:
    """The tested model of a version that learned nearly all of the test rows, and notes; None: it is measured as it is
    served.
    """
    known, _ = unseen_rows(context, work, split.test, version)
    if known is not None and known.sum() >= LEAST_UNSEEN:
        return None, ()
    return tested_model(context.project, version)


def _unseen_split(
    context: Context, work: TrainingWork, split: TrainTestSplit, version: ModelVersion, *, tested: bool
) -> tuple[TrainTestSplit, str, tuple[str, ...]]:
    """The split with the test rows that the version, or its `tested` model, did not learn from; why that is not known;
    notes.

    Raises:
        RefusedError: no more than a handful is left.
    """
    known, reason = unseen_rows(context, work, split.test, version, tested=tested)
    if known is None:
        return split, reason, (reason,)
    refit_note = (f"{version.uri} learned from all rows: the figures are of its configuration fitted without them",)
    notes = refit_note if tested else ()
    if known.all():
        return split, "", notes
    if known.sum() < LEAST_UNSEEN:
        raise RefusedError(
            f"{version.uri} learned from all but {int(known.sum())} of the {len(known):,} test rows",
            subject=version.uri,
            hint="evaluate it on later data, as with a later --as-of or a shorter evaluation.test",
        )
    note = f"{int((~known).sum()):,} test rows that the model learned from are left out"
    return dataclasses.replace(split, test=split.test.take(known)), "", (*notes, note)

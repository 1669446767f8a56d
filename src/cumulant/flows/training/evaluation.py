"""The steps `evaluate` and `gate`: the model, the baseline and the champion on the same untouched rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.flows.ledger.step_function import StepFunction
from cumulant.flows.registry.champion_scores import ModelAnswers
from cumulant.flows.registry.models import CHAMPION
from cumulant.flows.registry.opponents import Opponent, Opponents, margin_reference, opponents_of
from cumulant.flows.registry.version_servable import is_stored
from cumulant.flows.training.evaluation_record import Judgement
from cumulant.flows.training.fitted import Fitted
from cumulant.flows.training.search_step import load_model, rows_of
from cumulant.flows.training.tested_model import candidate_split
from cumulant.flows.training.training_identity import work_from_json
from cumulant.flows.training.window_uses import Reuse, record_use, reuse_of
from cumulant.ports.registry import ModelVersion
from cumulant.training.evaluation.comparisons import Rival
from cumulant.training.records import Evaluation
from cumulant.training.spec import QUICK_RESAMPLES, RESAMPLES, Parameter

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.training.training_identity import TrainingWork
    from cumulant.ports.journal import Transaction
    from cumulant.statistics import Rows
    from cumulant.training.dataset import TrainingSet
    from cumulant.training.policy import EvaluationPolicy

#: journal rows: what a training is compared with, fixed when it begins
REFERENCE = "reference"


def reference(context: Context, work: TrainingWork) -> ModelVersion | None:
    """The champion that this training is compared with: the one there was when it was first begun.

    So the same training run again finds its steps done, even if its own model has become the champion since.
    """
    name = context.project.name
    with context.transaction() as transaction:
        row = transaction.get(REFERENCE, work.identity)
        uri = row.value["uri"] if row is not None else champion_version(context)
        if row is None:
            transaction.put(REFERENCE, work.identity, {"uri": uri})
    try:
        return None if uri is None else context.project.registry().resolve(f"{name}/{uri}")
    except NotFoundError:  # it was deleted since
        return None


def champion_version(context: Context) -> str | None:
    """The version number of the champion."""
    try:
        return context.project.registry().resolve(f"{context.project.name}@{CHAMPION}").version
    except NotFoundError:
        return None


def champion_parameters(version: ModelVersion | None) -> Mapping[str, Parameter] | None:
    """What the search tries first: the champion's parameters, where they are LightGBM's."""
    tags = {} if version is None else version.tags
    # Before there were blends, they were those of the trainer.
    if tags.get("cumulant.parameters_of", tags.get("cumulant.trainer")) != "lightgbm":
        return None
    text = tags.get("cumulant.parameters")
    return msgspec.json.decode(text, type=dict[str, Parameter]) or None if text else None


def judge(context: Context, work: TrainingWork, fitted: Fitted, champion: ModelVersion | None) -> Judgement:
    """The figures on the test rows and the gate's verdict."""
    before = None if champion is None else margin_reference(context.project, champion)
    inputs = {
        **work.inputs,
        "model": fitted.model.key,
        "naive": fitted.naive.key,
        "champion": champion and champion.version,
        "judged": msgspec.to_builtins(work.evaluation_spec),
        "metric": fitted.summary.metric,
        "before": before and before.version,
    }

    def emit_decision(transaction: Transaction, result: dict[str, object]) -> None:
        from cumulant.training.events import GateDecided, ModelEvaluated

        judgement = msgspec.convert(result, Judgement)
        if judgement.use is not None:
            record_use(transaction, context, work, judgement.use)
        evaluation, verdict = judgement.evaluation, judgement.verdict
        transaction.emit(ModelEvaluated(model=fitted.model.key, rows=evaluation.rows, metrics=evaluation.values()))
        words: dict[str, str] = {f"{rule.metric}: {rule.rule}": rule.word for rule in verdict.rules}
        transaction.emit(GateDecided(passed=verdict.passed, word=verdict.word, words=words, reason=verdict.text))

    rivals = {"champion": champion, "before": before}
    arguments = {"work": work.to_json(), "fitted": msgspec.to_builtins(fitted), **msgspec.to_builtins(rivals)}
    outcome = context.step(
        "evaluate",
        inputs,
        lambda: _measure(context, work, fitted, champion, before),
        function=StepFunction(f"{__name__}:{run_evaluation.__name__}", arguments),
        uses=() if all(is_stored(context.project, rival) for rival in rivals.values() if rival) else ("registry",),
        write=emit_decision,
    )
    return msgspec.structs.replace(msgspec.convert(outcome.result, Judgement), reused=outcome.reused)


def run_evaluation(
    context: Context, *, work: object, fitted: object, champion: object, before: object
) -> dict[str, object]:
    """The step `evaluate` in a process of its own: a `Judgement`."""
    return _measure(
        context,
        work_from_json(context.project, work),
        msgspec.convert(fitted, Fitted),
        msgspec.convert(champion, ModelVersion | None),
        msgspec.convert(before, ModelVersion | None),
    )


def _measure(
    context: Context, work: TrainingWork, fitted: Fitted, champion: ModelVersion | None, before: ModelVersion | None
) -> dict[str, object]:
    return msgspec.to_builtins(_judgement(context, work, fitted, champion, before))  # type: ignore[no-any-return]


def _judgement(
    context: Context, work: TrainingWork, fitted: Fitted, champion: ModelVersion | None, before: ModelVersion | None
) -> Judgement:
    split = rows_of(context, work)
    split = replace(split, train=split.train.without_columns())  # what is measured are the test rows
    test, reuse = split.test, reuse_of(context, work, split, fitted.model.key)
    model, naive = load_model(context.project, fitted.model), load_model(context.project, fitted.naive)
    context.progress("evaluate", 0.1)
    refitted = candidate_split(context.project, work, fitted.split)
    opponents, notes = opponents_of(context, work, champion, before, test, refitted=refitted)
    if champion is not None and opponents.champion is None:
        notes = (*notes, f"{champion.uri} stays the champion until the alias is moved by hand")
    return compare_answers(
        context,
        test,
        work.evaluation,
        candidate=ModelAnswers(model.predict_frame(test.features), model.threshold, model.importance),
        naive=ModelAnswers(naive.predict_frame(test.features), naive.threshold),
        opponents=opponents,
        main=fitted.summary.metric,
        reuse=reuse,
        notes=notes,
        resamples=QUICK_RESAMPLES if work.sample < 1 else RESAMPLES,
    )


def compare_answers(
    context: Context,
    test: TrainingSet,
    spec: EvaluationPolicy,
    *,
    candidate: ModelAnswers,
    naive: ModelAnswers,
    opponents: Opponents,
    main: str,
    reuse: Reuse,
    doubt: str = "",
    notes: tuple[str, ...] = (),
    resamples: int = RESAMPLES,
) -> Judgement:
    """Evaluations on the same rows, and the gate's word. `doubt`: why the candidate's figures may be too good.
    `resamples`: of the evaluations' intervals; the gate's are always as many as it needs.
    """
    from cumulant.training.evaluation.gate import gate

    def measured(answers: ModelAnswers, rows: TrainingSet = test) -> Evaluation:
        from cumulant.training.evaluation.evaluation import evaluate

        figures = evaluate(rows, answers.values, spec, threshold=answers.threshold, resamples=resamples)
        return msgspec.structs.replace(figures, importance=dict(answers.importance))

    def scored(answers: ModelAnswers) -> Rows:
        from cumulant.training.evaluation.evaluation import scored as training_scored

        return training_scored(test, answers.values, spec, threshold=answers.threshold)

    def rival(opponent: Opponent | None) -> Rival | None:
        if opponent is None:
            return None
        rows = None if opponent.answers is None else scored(opponent.answers)
        return Rival(rows=rows, unseen=opponent.unseen, reason=opponent.reason)

    evaluation = measured(candidate)
    context.progress("evaluate", 0.5)
    verdict = gate(
        scored(candidate),
        task=test.task,
        main=main,
        naive=scored(naive),
        champion=rival(opponents.champion),
        before=rival(opponents.before),
        rules=spec.gate,
        doubt=doubt,
        level=reuse.level,
    )
    context.progress("evaluate", 0.8)
    champion = opponents.champion
    comparable = champion is not None and champion.answers is not None
    return Judgement(
        evaluation=evaluation,
        naive=measured(naive),
        champion=measured(*champion.on_unseen(test)) if champion is not None and comparable else None,
        champion_uri=None if champion is None else champion.version.uri,
        verdict=verdict,
        margins_from=opponents.margins_from(verdict, main),
        use=reuse.use,
        notes=(*notes, *reuse.note),
    )

"""The steps `evaluate` and `gate`: the model, the baseline and the champion on the same untouched rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cumulant import training
from cumulant.core.errors import NotFoundError
from cumulant.ports.registry import ModelVersion
from cumulant.runtime.fitting import Fitted, loaded, rows_of
from cumulant.runtime.models import CHAMPION
from cumulant.runtime.records import RunVerdict
from cumulant.runtime.rivals import Answers, answers_of
from cumulant.training import Evaluation, Parameter, Verdict

if TYPE_CHECKING:
    from cumulant.ports.journal import Transaction
    from cumulant.runtime.context import Context
    from cumulant.runtime.work import Work
    from cumulant.statistics import Rows
    from cumulant.training import EvaluationSpec, TrainingSet

#: journal rows: what a training is compared with, fixed when it begins
REFERENCE = "reference"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations on the same test rows, and the gate's verdict. `champion` is None for a first model."""

    evaluation: Evaluation
    naive: Evaluation
    champion: Evaluation | None
    champion_uri: str | None
    verdict: Verdict
    notes: tuple[str, ...] = ()
    reused: bool = False

    @property
    def word(self) -> RunVerdict:
        return "passed" if self.verdict.passed else "refused"


def reference(context: Context, work: Work) -> ModelVersion | None:
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
    """What the search tries first: the champion's parameters, where it is of a searched kind."""
    if version is None or version.tags.get("cumulant.trainer") != "lightgbm":
        return None
    text = version.tags.get("cumulant.parameters")
    return msgspec.json.decode(text, type=dict[str, Parameter]) if text else None


def judge(context: Context, work: Work, fitted: Fitted, champion: ModelVersion | None) -> Judgement:
    """Measure on the test rows and ask the gate."""
    inputs = {
        **work.inputs,
        "model": fitted.model.key,
        "naive": fitted.naive.key,
        "champion": champion and champion.version,
        "judged": msgspec.to_builtins(work.evaluation),
        "metric": fitted.summary.metric,
    }

    def measure() -> dict[str, object]:
        return msgspec.to_builtins(_judgement(context, work, fitted, champion))  # type: ignore[no-any-return]

    def tell(transaction: Transaction, found: dict[str, object]) -> None:
        judgement = msgspec.convert(found, Judgement)
        evaluation, verdict = judgement.evaluation, judgement.verdict
        transaction.emit(
            training.ModelEvaluated(model=fitted.model.key, rows=evaluation.rows, metrics=evaluation.values())
        )
        words: dict[str, str] = {f"{rule.metric}: {rule.rule}": rule.word for rule in verdict.rules}
        transaction.emit(
            training.GateDecided(passed=verdict.passed, word=verdict.word, words=words, reason=verdict.text)
        )

    outcome = context.step("evaluate", inputs, measure, write=tell)
    return msgspec.structs.replace(msgspec.convert(outcome.result, Judgement), reused=outcome.reused)


def _judgement(context: Context, work: Work, fitted: Fitted, champion: ModelVersion | None) -> Judgement:
    test = rows_of(context, work).test
    model, naive = loaded(context, fitted.model), loaded(context, fitted.naive)
    context.progress("evaluate", 0.1)
    rival, notes = (None, ()) if champion is None else answers_of(context, work, champion, test)
    if champion is not None and rival is None:
        notes = (*notes, f"{champion.uri} stays the champion until the alias is moved by hand")
    return compared(
        context,
        test,
        work.evaluation,
        candidate=Answers(model.predict_frame(test.features), model.threshold, model.importance),
        naive=Answers(naive.predict_frame(test.features), naive.threshold),
        champion=rival,
        champion_uri=champion.uri if champion is not None and rival is not None else None,
        main=fitted.summary.metric,
        notes=notes,
    )


def compared(
    context: Context,
    test: TrainingSet,
    spec: EvaluationSpec,
    *,
    candidate: Answers,
    naive: Answers,
    champion: Answers | None,
    champion_uri: str | None,
    main: str,
    notes: tuple[str, ...] = (),
) -> Judgement:
    """Evaluations on the same rows, and the gate's word."""

    def measured(answers: Answers) -> Evaluation:
        found = training.evaluate(test, answers.values, spec, threshold=answers.threshold)
        return msgspec.structs.replace(found, importance=dict(answers.importance))

    def scored(answers: Answers) -> Rows:
        return training.scored(test, answers.values, spec, threshold=answers.threshold)

    evaluation = measured(candidate)
    context.progress("evaluate", 0.5)
    verdict = training.gate(
        scored(candidate),
        task=test.task,
        main=main,
        naive=scored(naive),
        champion=None if champion is None else scored(champion),
        rules=spec.gate,
    )
    context.progress("evaluate", 0.8)
    return Judgement(
        evaluation=evaluation,
        naive=measured(naive),
        champion=None if champion is None else measured(champion),
        champion_uri=champion_uri,
        verdict=verdict,
        notes=notes,
    )

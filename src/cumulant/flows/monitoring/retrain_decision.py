"""The retraining decision of an evaluation, and the transaction that stores both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.monitoring.state import (
    TRAINING,
    WATCH,
    MonitoringState,
    RetrainRequest,
    event_values,
    is_same,
    read_replaced,
    read_request,
    write,
)
from cumulant.monitoring.events import PerformanceLooked, RetrainingAsked
from cumulant.monitoring.retrain_rule import RetrainAction, RetrainEvidence, RetrainState, decide

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.monitoring.result import EvaluationResult
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

#: makes alerts of what was found, in a transaction where there is one
Tell = Callable[["EvaluationResult", "Transaction | None"], None]


def decide_retraining(
    project: Project, standing: MonitoringState, evidence: RetrainEvidence, *, fresh: bool, waited: bool
) -> tuple[RetrainState, RetrainAction]:
    """The rule's word. A look without a new window says nothing new of harm; only time may then ask, unless harm was
    a reason at the look before, which `waited` for something else, such as sound data.
    """
    terms = project.policies.monitoring.retrain
    wanted, _ = read_request(project.journal(), project.name)
    if wanted is not None and wanted.open:
        sentence = f"A training is on its way: {wanted.sentence}"
        return standing.retrain, RetrainAction(do="nothing", trigger=None, sentence=sentence)
    if not (fresh or waited):
        terms = msgspec.structs.replace(terms, on_harm=False)
    state, action = decide(standing.retrain, evidence, terms)
    return (state if fresh or action.do == "train" else standing.retrain), action


def write_evaluation(
    context: Context,
    before: MonitoringState | None,
    after: MonitoringState,
    result: EvaluationResult,
    *,
    expect: int,
    tell: Tell,
) -> None:
    """Write down what was counted, with its events, its alerts and the training that it asks for; what a look that saw
    nothing new would say again is not written. `before`: the watch as it was read; `expect`: its version.

    Raises:
        LeaseHeldError: another process has looked meanwhile.
    """
    fact = _fact(after, result)
    after = msgspec.structs.replace(after, looked=event_values(fact))
    if before is not None and is_same(before, after):
        tell(result, None)
        return
    _, seen = read_request(context.project.journal(), result.model)
    with context.transaction() as transaction:
        if before is not None and before.version != after.version:
            _, replaced = read_replaced(transaction, result.model, before.version)
            write(transaction, WATCH, f"{result.model}/{before.version}", before, expect=replaced)
        write(transaction, WATCH, result.model, after, expect=expect)
        if result.fresh or before is None or before.looked != after.looked:
            transaction.emit(fact)
        if result.action.do == "train":
            _request_training(transaction, result, expect=seen)
        tell(result, transaction)


def _fact(after: MonitoringState, result: EvaluationResult) -> PerformanceLooked:
    last, action = result.harm, result.action
    return PerformanceLooked(
        model=result.model,
        version=after.version,
        until=after.until.isoformat(),
        windows=result.fresh,
        word="cannot_tell" if last is None else last.word,
        change=None if last is None else last.kind,
        action=action.do,
        reason=action.sentence,
    )


def _request_training(transaction: Transaction, result: EvaluationResult, *, expect: int) -> None:
    trigger, sentence = result.action.trigger, result.action.sentence
    assert trigger is not None
    since = result.harm_since if trigger == "harm" else None
    wanted = RetrainRequest(
        requested=result.at, champion=result.version, trigger=trigger, sentence=sentence, since=since
    )
    write(transaction, TRAINING, result.model, wanted, expect=expect)
    transaction.emit(RetrainingAsked(model=result.model, champion=result.version, trigger=trigger, reason=sentence))

"""The transaction that stores an evaluation with its events, its alerts and the training that it requests."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.alerting.alerts import observe
from cumulant.flows.monitoring.alerts import EVALUATION_RULES, evaluation_alerts, training_alerts
from cumulant.flows.monitoring.state import (
    TRAINING,
    WATCH,
    RetrainRequest,
    event_values,
    is_same,
    read_request,
    read_state,
    write,
)
from cumulant.monitoring.events import PerformanceEvaluated, RetrainingRequested

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.monitoring.evaluation import EvaluationOutcome
    from cumulant.flows.monitoring.evidence import StoredEvaluation
    from cumulant.flows.monitoring.result import EvaluationResult
    from cumulant.ports.journal import Transaction


def write_evaluation(
    context: Context, before: StoredEvaluation, evaluation: EvaluationOutcome, *, at: datetime | None
) -> None:
    """Store an evaluation, where it has anything new, and raise its alerts. `at`: as in `run_monitoring`.

    Raises:
        LeaseHeldError: another process has evaluated the model since `before` was read.
    """
    result, (last, version) = evaluation.result, before.state
    fact = _fact(evaluation)
    after = msgspec.structs.replace(evaluation.state, last_event=event_values(fact))
    if last is not None and is_same(last, after):
        _raise_alerts(context, result, at, None)
        return
    with context.transaction() as transaction:
        if last is not None and last.version != after.version:
            key = f"{result.model}/{last.version}"
            write(transaction, WATCH, key, last, expect=read_state(transaction, key)[1])
        write(transaction, WATCH, result.model, after, expect=version)
        if result.fresh or last is None or last.last_event != after.last_event:
            transaction.emit(fact)
        if result.action.do == "train":
            _request_training(transaction, result, expect=before.request[1])
        _raise_alerts(context, result, at, transaction)


def _fact(evaluation: EvaluationOutcome) -> PerformanceEvaluated:
    result = evaluation.result
    last, action = result.harm, result.action
    return PerformanceEvaluated(
        model=result.model,
        version=result.version,
        until=result.until.isoformat(),
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
    request = RetrainRequest(
        requested=result.at, champion=result.version, trigger=trigger, sentence=sentence, since=since
    )
    write(transaction, TRAINING, result.model, request, expect=expect)
    transaction.emit(RetrainingRequested(model=result.model, champion=result.version, trigger=trigger, reason=sentence))


def _raise_alerts(
    context: Context, result: EvaluationResult, at: datetime | None, transaction: Transaction | None
) -> None:
    project = context.project
    # A training may have moved on since the evidence was read.
    request, _ = read_request(transaction or project.journal(), project.name)
    findings = (*evaluation_alerts(result), *training_alerts(project.name, request, result.version))
    scopes = [(project.name, rule) for rule in EVALUATION_RULES]
    observe(
        project,
        findings,
        principal=context.principal,
        examined=scopes,
        at=at,
        within=transaction,
        clock=context.clock,
    )

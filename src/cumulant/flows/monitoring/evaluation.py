"""One evaluation of a served model: harm, changed outcomes and the retraining decision follow from the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from cumulant.flows.monitoring.estimates import LossEstimate
from cumulant.flows.monitoring.late_labels import LateRows, count_late, counted_from
from cumulant.flows.monitoring.outcome_shift import BEFORE, RECENT, outcome_shift
from cumulant.flows.monitoring.refits import REFIT
from cumulant.flows.monitoring.result import SPAN, EvaluationResult, audit_of, reason_for_distrust
from cumulant.flows.monitoring.served_log import predictions
from cumulant.flows.monitoring.state import MonitoringState, WindowRecord, harm_values
from cumulant.monitoring.performance.blocks import loss_of
from cumulant.monitoring.performance.loss_monitor import Harm, LossMonitor, add_window
from cumulant.monitoring.retrain_rule import RetrainAction, RetrainEvidence, RetrainState, decide

if TYPE_CHECKING:
    from datetime import datetime

    from cumulant.flows.monitoring.evidence import EndedWindow, Evidence
    from cumulant.monitoring.drift.findings import DriftFinding
    from cumulant.monitoring.performance.blocks import Loss
    from cumulant.monitoring.performance.rows import PredictionRows, PredictionWindow
    from cumulant.monitoring.performance.unlabelled import EstimatedFigure
    from cumulant.monitoring.policy import MonitoringPolicy, RetrainPolicy
    from cumulant.statistics.performance.audit import Audit
    from cumulant.statistics.rows import Floats

#: windows whose figures are stored
STORED_WINDOWS = 400
#: half of a 95% interval, in standard errors
_NORMAL_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class EvaluationOutcome:
    """The result of an evaluation, and the state that the next one continues."""

    result: EvaluationResult
    state: MonitoringState


def evaluate(evidence: Evidence, policy: MonitoringPolicy) -> EvaluationOutcome:
    """Evaluate the windows that are due, and apply the retraining policy.

    Raises:
        StorageError: rows cannot be stored.
    """
    before = evidence.state
    monitor, harms, records = _evaluate_windows(evidence, policy)
    last = harms[-1] if harms else before.newest_harm
    pending = tuple(window.record for window in evidence.ended[len(records) :])
    windows = (*before.windows, *records, *pending)
    reference_loss = _reference_loss(evidence)
    after = msgspec.structs.replace(
        _state_after(before, records, monitor, last), pending=pending, reference_loss=reference_loss
    )
    audit = audit_of(windows, reference_loss)
    newest, notes = _estimate_newest(evidence, policy, last, audit)
    retrain, action = _decide_retraining(evidence, policy.retrain, after, last, newest.figure, fresh=bool(harms))
    result = EvaluationResult(
        model=evidence.model.name,
        version=before.version,
        at=evidence.at,
        until=after.until,
        fresh=len(records),
        windows=windows,
        harm=last,
        estimate=newest.figure,
        reference_loss=reference_loss,
        audit=audit,
        outcomes=_outcomes(evidence, policy, after.until),
        fault=evidence.fault,
        action=action,
        notes=tuple(dict.fromkeys((*evidence.notes, *notes))),
        late=_late_rows(evidence, policy),
        estimates=dict(newest.figures),
        estimate_refused=newest.refused,
    )
    return EvaluationOutcome(result=result, state=msgspec.structs.replace(after, retrain=retrain))


def _evaluate_windows(
    evidence: Evidence, policy: MonitoringPolicy
) -> tuple[LossMonitor | None, list[Harm], list[WindowRecord]]:
    """After the windows that are due: the sums, the harm after each that has enough labels, and their records."""
    monitor, harms, records = evidence.monitor, list[Harm](), list[WindowRecord]()
    for ended, window, known, scores in _due_windows(evidence):
        record = ended.record
        if known.height:
            answered = predictions(known, policy.performance.window)
            record = _with_loss(record, answered, evidence.model.loss)
            if monitor is not None and ended.labelled:
                record, monitor, window_harm = _add_window(monitor, window, record, answered, scores)
                harms.append(window_harm)
        records.append(record)
    return monitor, harms, records


def _due_windows(
    evidence: Evidence,
) -> Iterator[tuple[EndedWindow, PredictionWindow, pl.DataFrame, Floats | None]]:
    """Each window that is due, its rows with a label, and of these the scores of a refit."""
    due = evidence.due
    if not due:
        return
    refits = iter(() if evidence.refit_scores is None else evidence.refit_scores.windows())
    refit = next(refits, None)
    rows = evidence.own.windows(evidence.state.until, due[-1].record.end)
    for ended, (window, part) in zip(due, rows, strict=True):
        scores = None
        if refit is not None and refit[0] == window:
            scores, refit = refit[1][REFIT].to_numpy(), next(refits, None)
        yield ended, window, part.filter(pl.col("value").is_not_null()), scores


def _with_loss(record: WindowRecord, answered: PredictionRows, loss: Loss) -> WindowRecord:
    mean, low, high = _mean_with_interval(loss_of(loss, answered.truth, answered.score), answered.weight)
    return msgspec.structs.replace(
        record,
        loss=mean,
        loss_low=low,
        loss_high=high,
        positive=None if answered.several else float(np.average(answered.truth, weights=answered.weight)),
    )


def _add_window(
    monitor: LossMonitor, window: PredictionWindow, record: WindowRecord, answered: PredictionRows, refit: Floats | None
) -> tuple[WindowRecord, LossMonitor, Harm]:
    """The record of a window with enough labels, the sums with it, and the harm after it."""
    if refit is not None:
        there = np.asarray(np.isfinite(refit).reshape(len(refit), -1).all(axis=1))
        answered, refit = answered.where(there), refit[there]
        record = msgspec.structs.replace(record, refit=_mean_loss(answered, refit, monitor.policy.loss))
    monitor, window_harm = add_window(monitor, window, answered, refit)
    return msgspec.structs.replace(record, word=window_harm.word), monitor, window_harm


def _mean_with_interval(losses: Floats, weight: Floats) -> tuple[float, float | None, float | None]:
    """The weighted mean with its 95% interval by the spread of the rows; without one of a single row."""
    mean = float(np.average(losses, weights=weight))
    if len(losses) < 2:
        return mean, None, None
    margin = _NORMAL_95 * float(np.sqrt(((weight * (losses - mean)) ** 2).sum()) / weight.sum())
    return mean, mean - margin, mean + margin


def _mean_loss(answered: PredictionRows, scores: Floats, loss: Loss) -> float:
    return float(np.average(loss_of(loss, answered.truth, scores), weights=answered.weight))


def _state_after(
    before: MonitoringState, records: Sequence[WindowRecord], monitor: LossMonitor | None, last: Harm | None
) -> MonitoringState:
    """The state with the windows that were evaluated, and the retraining policy's state as it was."""
    until = records[-1].end if records else before.until
    windows = [record for record in (*before.windows, *records) if record.end <= until]
    return MonitoringState(
        version=before.version,
        since=before.since,
        until=until,
        retrain=before.retrain,
        harm=None if monitor is None else monitor.to_json(),
        last_harm=harm_values(last),
        windows=tuple(windows[-STORED_WINDOWS:]),
        labels=before.labels + sum(record.labelled for record in records),
    )


def _reference_loss(evidence: Evidence) -> float | None:
    reference = evidence.reference
    if not len(reference):
        return None
    return float(loss_of(evidence.model.loss, reference.truth, reference.score).mean())


def _estimate_newest(
    evidence: Evidence, policy: MonitoringPolicy, last: Harm | None, audit: Audit | None
) -> tuple[LossEstimate, list[str]]:
    """The loss of the newest windows together, unless labels contradict scores or estimates; and notes."""
    estimates = evidence.estimates
    since = evidence.at - SPAN * policy.performance.window
    newest = [part for _, part in evidence.own.windows(since)] if estimates.refused is None else []
    if not newest:
        return LossEstimate(None, estimates.refused), []
    refused = reason_for_distrust(evidence.model.several, last, audit)
    kind = None if last is None else last.kind
    estimate = estimates.of(pl.concat(newest), kind) if refused is None else LossEstimate(None, refused)
    if estimate.refused is None:
        return estimate, []
    return estimate, [f"the loss of the newest windows is not estimated: {estimate.refused}"]


def _outcomes(evidence: Evidence, policy: MonitoringPolicy, until: datetime) -> tuple[DriftFinding, ...]:
    model = evidence.model
    if model.task == "regression":
        return ()
    ripe = min(evidence.at - evidence.label_delay, max(until, evidence.at - RECENT))
    names = [str(label) for label in model.classes] if model.several else ["0", "1"]
    parts = (rows for _, rows in evidence.own.rows.windows(ripe - RECENT - BEFORE, ripe))
    return outcome_shift(parts, policy.drift, evidence.scratch, until=ripe, names=names)


def _late_rows(evidence: Evidence, policy: MonitoringPolicy) -> LateRows:
    before = evidence.state
    since = counted_from(before.windows, STORED_WINDOWS, evidence.since)
    parts = (part for _, part in evidence.own.windows(since, before.until))
    return count_late(parts, before.windows, policy.performance.window, since=since, until=before.until)


def _decide_retraining(
    evidence: Evidence,
    policy: RetrainPolicy,
    state: MonitoringState,
    last: Harm | None,
    estimate: EstimatedFigure | None,
    *,
    fresh: bool,
) -> tuple[RetrainState, RetrainAction]:
    """The decision of the retraining policy. Without a `fresh` window only time or an earlier, blocked harm counts."""
    request, _ = evidence.stored.request
    if request is not None and request.open:
        sentence = f"A training is on its way: {request.sentence}"
        return state.retrain, RetrainAction(do="nothing", trigger=None, sentence=sentence)
    if not (fresh or evidence.state.last_event.get("action") == "wait"):
        policy = msgspec.structs.replace(policy, on_harm=False)
    after, action = decide(state.retrain, _retrain_evidence(evidence, state, last, estimate), policy)
    return (after if fresh or action.do == "train" else state.retrain), action


def _retrain_evidence(
    evidence: Evidence, state: MonitoringState, last: Harm | None, estimate: EstimatedFigure | None
) -> RetrainEvidence:
    # A new value of a name, such as a new customer, is no reason to distrust the rows; a column that is lost is.
    lost = any(finding.kind == "data_fault" and finding.what != "unseen" for finding in evidence.drift)
    words = {} if last is None else {finding.question: finding.word for finding in last.findings}
    return RetrainEvidence(
        now=evidence.at,
        new_labels=state.labels,
        fault=evidence.fault,
        drift=any(finding.kind != "data_fault" for finding in evidence.drift),
        kind="data_fault" if lost else None if last is None else last.kind,
        measured=None if last is None else last.word,
        refit=words.get("refit"),
        estimated=None if estimate is None else estimate.word,
    )

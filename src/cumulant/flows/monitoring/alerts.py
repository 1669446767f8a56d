"""Findings of monitoring for alerting: of the rows, of an evaluation, and of a requested training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cumulant.alerting.alert_state import Finding
from cumulant.core.units import from_micros
from cumulant.monitoring.drift.words import sentence

if TYPE_CHECKING:
    from cumulant.flows.monitoring.monitor import MonitorResult
    from cumulant.flows.monitoring.result import EvaluationResult
    from cumulant.flows.monitoring.state import RetrainRequest
    from cumulant.monitoring.drift.findings import DriftFinding

#: the rule of a requested training
RETRAINING = "retraining"
#: rules that an evaluation examines
EVALUATION_RULES = ("loss", "estimated_loss", "outcome", "feed", RETRAINING)
#: kinds of change that a comparison without labels can show, each a rule, and what to do about it
DRIFT_RULES: Mapping[str, str] = {
    "data_fault": "check what delivers this column; the model is not at fault, and training on these rows would be",
    "covariate": "see whether labels or estimates show a loss; the change alone is no reason to train again",
    "prior": "compare with labels when they come: the share of positives moved, or the model's scores of them",
    "volume": "see whether rows are lost or sent twice on their way: callers, feeds, the log; training does not help",
}


def drift_alerts(model: str, result: MonitorResult) -> Iterator[Finding]:
    """What alarms in the newest window, one finding a column and kind of change."""
    findings: dict[tuple[str, str], list[DriftFinding]] = {}
    for finding in (*result.drift.active, *(finding for finding in result.volume if finding.active)):
        findings.setdefault((finding.kind, finding.feature), []).append(finding)
    for (kind, feature), several in findings.items():
        yield Finding(
            model=model,
            rule=kind,
            subject=feature,
            kind=kind,
            # What a client sent goes into no message.
            moved=f"{feature}: {'; '.join(sentence(finding, examples=False) for finding in several)}",
            since=min(
                from_micros(finding.since.start) if finding.since.timed else datetime.now(UTC) for finding in several
            ),
            next=DRIFT_RULES.get(kind, ""),
        )


def evaluation_alerts(evaluation: EvaluationResult) -> Iterator[Finding]:
    model, harm, estimate = evaluation.model, evaluation.harm, evaluation.estimate
    if evaluation.fault is not None:
        yield Finding(
            model=model,
            rule="feed",
            subject="sources",
            kind="data_fault",
            moved=evaluation.fault,
            since=evaluation.at,
            next="repair its delivery: nothing is learned until then; `cumulant data quarantine SOURCE` has the rows",
        )
    if harm is not None and evaluation.harm_since is not None:
        worse = [finding for finding in harm.findings if finding.word == "worse"]
        yield Finding(
            model=model,
            rule="loss",
            subject="loss",
            kind=harm.kind or "quality",
            moved="; ".join(finding.change or finding.sentence.rstrip(".") for finding in worse),
            since=evaluation.harm_since,
            at_least=any(finding.at_least for finding in worse if finding.since == evaluation.harm_since),
            cost="; ".join(
                f"{finding.excess:.3g} a prediction above {finding.question}" for finding in worse if finding.excess
            ),
            next=evaluation.action.sentence,
        )
    if estimate is not None and estimate.word == "worse":
        yield Finding(
            model=model,
            rule="estimated_loss",
            subject="loss",
            kind="quality",
            since=evaluation.at,
            moved=evaluation.estimate_sentence,
            next="wait for labels, which decide; or have some rows reviewed",
        )
    for finding in evaluation.outcomes:
        if finding.active:
            yield _outcome_alert(evaluation, finding)


def _outcome_alert(evaluation: EvaluationResult, finding: DriftFinding) -> Finding:
    harm = evaluation.harm
    unproven = harm is not None and harm.word != "worse"
    addition = " No loss above that of the model retrained on recent rows is shown." if unproven else ""
    return Finding(
        model=evaluation.model,
        rule="outcome",
        subject=finding.feature,
        kind=finding.kind,
        moved=f"what becomes of predictions has changed: {sentence(finding, examples=False)}",
        since=from_micros(finding.since.start),
        next=f"see whether the change stays; {evaluation.action.sentence}{addition}",
    )


def training_alerts(model: str, request: RetrainRequest | None, champion: str | None = None) -> Iterator[Finding]:
    """A failed training, until the next request; or a version that waits, for approval until a new champion, or for the
    objectives of the served model until its release begins.

    `champion`: None: still that of the request. Raised at every evaluation, so that none is lost.
    """
    if request is None:
        return
    if request.stage in ("refused", "failed"):
        moved = f"the requested training ({request.sentence}) failed: {request.message}"
        yield _training_alert(model, request, moved, "read `cumulant runs list`; train by hand once the cause is fixed")
    if request.stage == "trained" and request.slo_hold:
        moved = f"a version was trained ({request.sentence}) and waits: {request.message}"
        begin = f"cumulant release start {request.candidate} --override-slo REASON"
        what_next = f"read `cumulant slo show`; `{begin}` where it is the fix"
        yield _training_alert(model, request, moved, what_next)
    if request.stage == "offered" and champion in (None, request.champion):
        moved = f"a version was trained ({request.sentence}) and waits for approval: {request.message}"
        what_next = "compare it with `cumulant models compare`, then move the alias or leave it"
        yield _training_alert(model, request, moved, what_next)


def _training_alert(model: str, request: RetrainRequest, moved: str, what_next: str) -> Finding:
    return Finding(
        model=model,
        rule=RETRAINING,
        subject="training",
        kind="quality",
        since=request.requested,
        moved=moved,
        next=what_next,
    )

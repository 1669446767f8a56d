"""One monitoring run: compare the rows, evaluate the served model (load, evaluate, write), raise alerts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros
from cumulant.data.parts.spill import spill_in
from cumulant.flows.data.memory_budget import scratch_folder
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.monitoring.drift.sides import MonitorRequest
from cumulant.flows.monitoring.evaluation import evaluate
from cumulant.flows.monitoring.evidence import load_evidence
from cumulant.flows.monitoring.monitor import MonitorResult
from cumulant.flows.monitoring.persistence import write_evaluation
from cumulant.flows.monitoring.project_drift import monitor_project
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.monitoring.result import EvaluationResult, newest_since
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.outcomes.labels import join_labels
from cumulant.flows.serving.predictions import prediction_log
from cumulant.monitoring.drift.words import sentence
from cumulant.monitoring.retrain_rule import RetrainAction

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class MonitorFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of a run. `effect`: a Jensen-Shannon distance or share, or of a loss the excess over the bar.

    Losses are means of a row since then; `retrained`: it led to a training.
    """

    feature: str
    kind: str
    effect: float | None
    since: datetime
    active: bool
    says: str
    retrained: bool
    loss_estimated: float | None
    loss_measured: float | None


class MonitorRun(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    model: str
    version: str
    findings: tuple[MonitorFinding, ...]
    evaluation: EvaluationResult
    drift: MonitorResult
    action: RetrainAction

    @property
    def alarming(self) -> bool:
        return any(finding.active for finding in self.findings)


@verb("monitor.run")
def run_monitoring(
    project: Project,
    *,
    principal: Principal,
    at: datetime | None = None,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> MonitorRun:
    """Monitor once. Alerts are queued when it returns; a training that the policy requires is requested, not begun.

    `at`: only the rows of before, the labels that were known and the windows that had ended by then.

    Raises:
        DataError: no row is of before `at`.
        ContractBreachError: all rows are dated after they were answered by more than `serving.clock_skew`.
        UsageError: nothing was served yet, the served version was not trained here, or `at` is to come.
        StorageError: the log or a label cannot be read.
        LeaseHeldError: another process evaluates at the same time.
    """
    if at is not None and at > (clock or SystemClock()).now():
        # Windows would be evaluated that go on, or whose labels are still to come, and never again.
        raise UsageError(f"{at.isoformat()} is to come", subject="--at", hint="give a moment that has passed")
    log = prediction_log(project, principal=principal)
    if not log.days():
        raise UsageError(
            "the project has no prediction log yet, or its days were older than `serving.log.keep`",
            subject=log.location,
            hint="`cumulant up` serves the model; `cumulant labels import-predictions` takes in other logs",
        )
    progress("rows")
    drift = monitor_project(
        project,
        MonitorRequest(predictions=log, reference=None, before=at),
        log,
        project.policies.monitoring.drift,
        principal=principal,
        quiet=True,
        progress=progress,
    )
    evaluation = evaluate_served(project, drift, principal=principal, at=at, progress=progress, clock=clock)
    return MonitorRun(
        at=evaluation.at,
        model=evaluation.model,
        version=evaluation.version,
        findings=tuple(_findings(drift, evaluation)),
        evaluation=evaluation,
        drift=drift,
        action=evaluation.action,
    )


@verb("monitor.run")
def evaluate_served(
    project: Project,
    drift: MonitorResult,
    *,
    principal: Principal,
    at: datetime | None = None,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> EvaluationResult:
    """Ingest labels, evaluate the windows due by `at` (now), and apply the retraining policy, in one transaction.

    Where nothing is new nothing is written. `drift`: of the newest rows.

    Raises:
        UsageError, NotFoundError: as `served_reference`.
        LeaseHeldError: another process has evaluated the model meanwhile.
        StorageError: the log or a label cannot be read.
    """
    with served_reference(project, principal=principal, progress=progress) as served:
        schema = schema_of(project, served.described)
        join_labels(project, principal=principal, schema=schema)
        with (
            open_run(
                project,
                "monitor",
                principal=principal,
                progress=progress,
                clock=clock,
                quiet=True,
            ) as context,
            spill_in(scratch_folder(project)) as scratch,
        ):
            time = at or context.now()
            evidence = load_evidence(context, served, schema, drift.drift.active, at=time, scratch=scratch)
            evaluation = evaluate(evidence, project.policies.monitoring)
            write_evaluation(context, evidence.stored, evaluation, at=at)
            return evaluation.result


def _findings(drift: MonitorResult, evaluation: EvaluationResult) -> Iterator[MonitorFinding]:
    trained, harm, estimate = evaluation.action.do == "train", evaluation.harm, evaluation.estimate
    if evaluation.fault is not None:
        yield _finding(evaluation, "sources", "data_fault", evaluation.at, evaluation.fault)
    if harm is not None and evaluation.harm_since is not None:
        excess = [finding.excess for finding in harm.findings if finding.word == "worse"]
        yield _finding(
            evaluation,
            "loss",
            harm.kind or "quality",
            evaluation.harm_since,
            harm.sentence,
            effect=max((value for value in excess if value is not None), default=None),
            retrained=trained,
        )
    if estimate is not None and estimate.word == "worse":
        yield _finding(
            evaluation,
            "estimated_loss",
            "quality",
            newest_since(evaluation),
            evaluation.estimate_sentence,
            effect=estimate.value - (evaluation.reference_loss or 0.0),
            retrained=trained,
        )
    for finding in (*drift.findings, *evaluation.outcomes):
        yield _finding(
            evaluation,
            finding.feature,
            finding.kind,
            from_micros(finding.since.start) if finding.since.timed else evaluation.at,
            sentence(finding, examples=False),
            effect=finding.effect,
            active=finding.active,
            retrained=trained and finding.active and finding.kind not in ("data_fault", "volume"),
        )


def _finding(
    evaluation: EvaluationResult,
    feature: str,
    kind: str,
    since: datetime,
    text: str,
    *,
    effect: float | None = None,
    active: bool = True,
    retrained: bool = False,
) -> MonitorFinding:
    estimated, measured = evaluation.losses_since(since)
    return MonitorFinding(
        feature=feature,
        kind=kind,
        effect=effect,
        since=since,
        active=active,
        says=text,
        retrained=retrained,
        loss_estimated=estimated,
        loss_measured=measured,
    )

"""One monitoring run: drift and losses are evaluated, alerts raised, and the retraining decision stored."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import SystemClock
from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.monitoring.evaluation import evaluate_served
from cumulant.flows.monitoring.monitor import MonitorRequest, MonitorResult, monitor_project
from cumulant.flows.monitoring.result import EvaluationResult, span_of
from cumulant.flows.monitoring.state import read_request
from cumulant.flows.monitoring.training_alerts import RULE, of_training
from cumulant.flows.serving.predictions import log_folder
from cumulant.monitoring.drift.words import sentence
from cumulant.monitoring.retrain_rule import RetrainAction

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.monitoring.drift.findings import DriftFinding
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

#: rules of alerts that a round looks at, beside those of `monitor_project`
_RULES = ("loss", "estimated_loss", "outcome", "feed", RULE)


class MonitorFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a round found. `effect`: of a change of rows or labels the Jensen-Shannon distance or share, of a
    loss what it is above the bar. Losses are means of a row since then; `retrained`: it led to a training.
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
    """What one round found and what the rule said."""

    at: datetime
    model: str
    version: str
    findings: tuple[MonitorFinding, ...]
    judged: EvaluationResult
    drift: MonitorResult | None
    action: RetrainAction

    @property
    def alarming(self) -> bool:
        """Whether anything that goes on was found."""
        return any(finding.active for finding in self.findings)


def run_monitoring(
    project: Project,
    *,
    principal: Principal,
    at: datetime | None = None,
    progress: Progress = silent,
    clock: Clock | None = None,
) -> MonitorRun:
    """Look once. Alerts are on their way when it returns; a training that the rule wants is noted, not begun.

    `at`: only the rows of before, the labels that were known and the windows that had ended by then.

    Raises:
        DataError: no row is of before `at`.
        ContractBreachError: all rows are dated after they were answered by more than `serving.clock_skew`.
        UsageError: nothing was served yet, the served version was not trained here, or `at` is to come.
        StorageError: the log or a label cannot be read.
        LeaseHeldError: another process looks at the same time.
    """
    if at is not None and at > (clock or SystemClock()).now():
        # Windows would be judged that go on, or whose labels are still to come, and never again.
        raise UsageError(f"{at.isoformat()} is to come", subject="--at", hint="give a moment that has passed")
    folder = log_folder(project, principal=principal)
    if not any(folder.glob("date=*")):
        raise UsageError(
            "the project has no prediction log yet, or its days were older than `serving.log.keep`",
            subject=str(folder),
            hint="`cumulant up` serves the model; `cumulant labels import-predictions` takes in other logs",
        )
    progress("rows")
    drifted = monitor_project(
        project,
        MonitorRequest(predictions=folder, reference=None, before=at),
        folder,
        project.policies.monitoring.drift,
        principal=principal,
        quiet=True,
        progress=progress,
    )

    def tell(judged: EvaluationResult, within: Transaction | None) -> None:
        wanted, _ = read_request(within or project.journal(), project.name)
        findings = (*_alerting(project.name, judged), *of_training(project.name, wanted, judged.version))
        scopes = [(project.name, rule) for rule in _RULES]
        observe(project, findings, principal=principal, looked=scopes, at=at, within=within, clock=clock)

    judged = evaluate_served(project, drifted, principal=principal, tell=tell, at=at, progress=progress, clock=clock)
    return MonitorRun(
        at=judged.at,
        model=judged.model,
        version=judged.version,
        findings=tuple(_findings(drifted, judged)),
        judged=judged,
        drift=drifted,
        action=judged.action,
    )


def _findings(drifted: MonitorResult, judged: EvaluationResult) -> Iterator[MonitorFinding]:
    trained, harm = judged.action.do == "train", judged.harm
    if judged.fault is not None:
        yield _with_losses(judged, feature="sources", kind="data_fault", since=judged.at, says=judged.fault)
    if harm is not None and harm.word == "worse":
        worst = [finding for finding in harm.findings if finding.word == "worse"]
        yield _with_losses(
            judged,
            feature="loss",
            kind=harm.kind or "quality",
            says=harm.sentence,
            retrained=trained,
            since=min(finding.since for finding in worst if finding.since is not None),
            effect=max((finding.excess for finding in worst if finding.excess is not None), default=None),
        )
    if judged.estimate is not None and judged.estimate.word == "worse":
        yield _with_losses(
            judged,
            feature="estimated_loss",
            kind="quality",
            since=span_of(judged),
            says=_of_estimate(judged),
            effect=judged.estimate.value - (judged.reference_loss or 0.0),
            retrained=trained,
        )
    for finding in (*drifted.findings, *judged.outcomes):
        yield _with_losses(
            judged,
            feature=finding.feature,
            kind=finding.kind,
            effect=finding.effect,
            active=finding.active,
            since=from_micros(finding.since.start) if finding.since.timed else judged.at,
            says=sentence(finding, examples=False),
            retrained=trained and finding.active and finding.kind not in ("data_fault", "volume"),
        )


def _with_losses(
    judged: EvaluationResult,
    *,
    feature: str,
    kind: str,
    since: datetime,
    says: str,
    effect: float | None = None,
    active: bool = True,
    retrained: bool = False,
) -> MonitorFinding:
    estimated, measured = judged.losses_since(since)
    return MonitorFinding(
        feature=feature,
        kind=kind,
        effect=effect,
        since=since,
        active=active,
        says=says,
        retrained=retrained,
        loss_estimated=estimated,
        loss_measured=measured,
    )


def _alerting(model: str, judged: EvaluationResult) -> Iterator[Finding]:
    if judged.fault is not None:
        yield Finding(
            model=model,
            rule="feed",
            subject="sources",
            kind="data_fault",
            moved=judged.fault,
            since=judged.at,
            next="mend what delivers it: nothing is learned until then; `cumulant data quarantine SOURCE` has the rows",
        )
    yield from _of_harm(model, judged)
    if judged.estimate is not None and judged.estimate.word == "worse":
        yield Finding(
            model=model,
            rule="estimated_loss",
            subject="loss",
            kind="quality",
            since=judged.at,
            moved=_of_estimate(judged),
            next="wait for labels, which decide; or have some rows reviewed",
        )
    for finding in judged.outcomes:
        if finding.active:
            yield _of_outcome(model, judged, finding)


def _of_estimate(judged: EvaluationResult) -> str:
    estimate = judged.estimate
    assert estimate is not None
    return (
        f"without labels, the model is estimated to lose {estimate.value:.3g} "
        f"[{estimate.low:.3g}, {estimate.high:.3g}] a prediction, "
        f"against {judged.reference_loss or 0:.3g} on its test rows"
    )


def _of_harm(model: str, judged: EvaluationResult) -> Iterator[Finding]:
    harm = judged.harm
    if harm is None:
        return
    if harm.word == "worse":
        worst = [finding for finding in harm.findings if finding.word == "worse"]
        yield Finding(
            model=model,
            rule="loss",
            subject="loss",
            kind=harm.kind or "quality",
            moved=harm.sentence,
            since=min(finding.since for finding in worst if finding.since is not None),
            cost="; ".join(
                f"{finding.excess:.3g} a prediction above {finding.question}" for finding in worst if finding.excess
            ),
            next=judged.action.sentence,
        )


def _of_outcome(model: str, judged: EvaluationResult, finding: DriftFinding) -> Finding:
    harm = judged.harm
    addition = "" if harm is None or harm.word == "worse" else " No loss above what a recent refit would have is shown."
    return Finding(
        model=model,
        rule="outcome",
        subject=finding.feature,
        kind=finding.kind,
        moved=f"what becomes of predictions has changed: {sentence(finding, examples=False)}",
        since=from_micros(finding.since.start),
        next=f"see whether the change stays; {judged.action.sentence}{addition}",
    )

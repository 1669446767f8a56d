"""The comparison of a project's prediction log with a reference, stored as an event and raised as alerts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.data.memory_budget import scratch_folder
from cumulant.flows.features.task import target_columns
from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.alerts import DRIFT_RULES, drift_alerts
from cumulant.flows.monitoring.drift.sides import MonitorRequest
from cumulant.flows.monitoring.monitor import MonitorResult, monitor
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.monitoring.result_cache import cache_folder
from cumulant.monitoring.drift.words import day
from cumulant.monitoring.events import DriftAlarm, DriftEvaluated
from cumulant.ports.log import Log

if TYPE_CHECKING:
    from cumulant.monitoring.policy import DriftPolicy
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: journal rows: the last event of a comparison of a model's rows
_LOOKED = "drift_evaluated"


@verb("monitor.run")
def monitor_project(
    project: Project,
    request: MonitorRequest,
    log: Log,
    policy: DriftPolicy,
    *,
    principal: Principal,
    quiet: bool = False,
    progress: Progress = silent,
) -> MonitorResult:
    """Compare the prediction log with a reference (default: the champion's training), with event and alerts.

    A comparison of the past, or of some columns, alters no alerts. With `quiet` an event only where it differs from the
    last one.

    Raises:
        RefusedError: the principal may not.
        DataError, UsageError, StorageError: as `monitor`.
        UsageError, NotFoundError: as `served_reference`.
    """
    request = replace(
        request,
        predictions=log,
        hashed=tuple(sorted(project.policies.personal)),
        targets=declared_targets(project),
        skew=project.policies.clock_skew,
    )
    with ExitStack() as stack:
        served = None
        if request.reference is None:
            served = stack.enter_context(served_reference(project, principal=principal, progress=progress))
        result = monitor(
            request,
            policy,
            served=served,
            keep=cache_folder(project, "monitoring", "profiles"),
            performance=project.policies.monitoring.performance,
            scratch=scratch_folder(project),
        )
    _report(project, _fact(project.name, result), principal, quiet=quiet)
    if not request.narrowed and policy.ignore == project.policies.monitoring.drift.ignore:
        scopes = [(project.name, rule) for rule in DRIFT_RULES]
        observe(project, drift_alerts(project.name, result), principal=principal, examined=scopes, at=request.before)
    return result


def declared_targets(project: Project) -> tuple[str, ...]:
    """The columns of the project's target, which rows that were just scored do not have."""
    training = project.spec.training
    return () if training is None else target_columns(training.target)


def _report(project: Project, fact: DriftEvaluated, principal: Principal, *, quiet: bool) -> None:
    values = msgspec.to_builtins(fact)
    row = project.journal().get(_LOOKED, fact.model)
    if quiet and row is not None and msgspec.json.encode(row.value) == msgspec.json.encode(values):
        return
    with project.journal().transaction(actor=Actor(principal.id)) as transaction:
        transaction.put(_LOOKED, fact.model, values)
        transaction.emit(fact)


def _fact(model: str, result: MonitorResult) -> DriftEvaluated:
    drift = result.drift
    return DriftEvaluated(
        model=model,
        rows=result.rows,
        windows=len(drift.windows),
        alarming=sum(result.alarming_windows),
        until=day(drift.windows[-1]),
        alarms=tuple(
            DriftAlarm(
                feature=finding.feature,
                change=finding.kind,
                what=finding.what,
                effect=finding.effect,
                since=day(finding.since),
                active=finding.active,
            )
            for finding in result.findings
        ),
    )

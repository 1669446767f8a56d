"""The comparison of a project's prediction log with a reference, stored as an event and raised as alerts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.structs import struct_from
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.data.memory_budget import scratch_folder
from cumulant.flows.features.task import target_columns
from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.alerts import DRIFT_RULES, drift_alerts
from cumulant.flows.monitoring.drift.drift_history import COMPARED, HISTORY, DriftHistory, drift_history
from cumulant.flows.monitoring.drift.drift_page import DriftPageSource
from cumulant.flows.monitoring.drift.sides import MonitorRequest
from cumulant.flows.monitoring.monitor import MonitorResult, monitor
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.monitoring.result_cache import cache_folder
from cumulant.flows.monitoring.state import COLUMNS, ComparedColumn
from cumulant.monitoring.drift.words import day
from cumulant.monitoring.events import DriftAlarm, DriftEvaluated
from cumulant.ports.log import Log

if TYPE_CHECKING:
    from cumulant.monitoring.policy import DriftPolicy
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project


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
        pages = list[DriftPageSource]()
        result = monitor(
            request,
            policy,
            served=served,
            keep=cache_folder(project, "monitoring", "profiles"),
            performance=project.policies.monitoring.performance,
            scratch=scratch_folder(project),
            inspect=pages.append,
        )
    history = None
    if served is not None and not request.narrowed:
        history = drift_history(pages[0], policy, version=served.version.version, weights=served.weights)
    _report(project, _fact(project.name, result), result, history, principal, quiet=quiet)
    if not request.narrowed and policy.ignore == project.policies.monitoring.drift.ignore:
        scopes = [(project.name, rule) for rule in DRIFT_RULES]
        observe(project, drift_alerts(project.name, result), principal=principal, examined=scopes, at=request.before)
    return result


def declared_targets(project: Project) -> tuple[str, ...]:
    """The columns of the project's target, which rows that were just scored do not have."""
    training = project.spec.training
    return () if training is None else target_columns(training.target)


def _report(
    project: Project,
    fact: DriftEvaluated,
    result: MonitorResult,
    history: DriftHistory | None,
    principal: Principal,
    *,
    quiet: bool,
) -> None:
    journal, values = project.journal(), msgspec.to_builtins(fact)
    fresh = not quiet or not _holds(journal, COMPARED, fact.model, values)
    seen = None if history is None else msgspec.to_builtins(history)
    if seen is not None and _holds(journal, HISTORY, fact.model, seen):
        seen = None
    if not fresh and seen is None:
        return
    with journal.transaction(actor=Actor(principal.id)) as transaction:
        if seen is not None:
            transaction.put(HISTORY, fact.model, seen)
        if fresh:
            transaction.put(COMPARED, fact.model, values)
            columns = [struct_from(ComparedColumn, column) for column in result.drift.columns]
            transaction.put(COLUMNS, fact.model, {"columns": msgspec.to_builtins(columns)})
            transaction.emit(fact)


def _holds(journal: Journal, kind: str, key: str, values: object) -> bool:
    """Whether that is what the row holds."""
    row = journal.get(kind, key)
    return row is not None and msgspec.json.encode(row.value) == msgspec.json.encode(values)


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

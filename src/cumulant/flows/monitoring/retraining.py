"""A requested training: train, compare by the gate, hand over to a release; each stage is recorded and repeatable."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import (
    CumulantError,
    DataError,
    ObjectiveMissedError,
    OutOfMemoryError,
    RefusedError,
    RetryableError,
    UsageError,
)
from cumulant.core.events import Actor, Fact
from cumulant.core.progress import Progress, silent
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.deployment.deployment import uses_releases, was_served
from cumulant.flows.ledger.actions import verb
from cumulant.flows.monitoring.alerts import RETRAINING, training_alerts
from cumulant.flows.monitoring.state import TRAINING, RetrainRequest, Stage, read_request, write
from cumulant.flows.release import store
from cumulant.flows.release.start.start import start_release
from cumulant.flows.training.train import TrainResult, train
from cumulant.monitoring.events import RetrainingProgressed
from cumulant.ports.access import Principal

if TYPE_CHECKING:
    from cumulant.project.project import Project


@verb("model.train")
def continue_retraining(
    project: Project,
    *,
    principal: Principal,
    as_of: datetime | None = None,
    progress: Progress = silent,
) -> RetrainRequest | None:
    """Continue the requested training as far as possible; its request, or None where there is none.

    Invalid data fail the training; temporary errors are tried again at the next call; a model that the gate refuses
    goes no further. A release begins with the approval that `release` or `monitoring.retrain` requires; without
    releases the alias moves, unless `monitoring.retrain` requires approval. `as_of` as in `train`.

    Raises:
        RefusedError: the principal may not.
        LeaseHeldError: another process continues it.
    """
    request, version = read_request(project.journal(), project.name)
    if request is None or not request.open:
        return request
    if request.stage == "requested":
        request, version = _train_stage(project, request, version, principal, as_of=as_of, progress=progress)
    if request.stage == "trained":
        request, version = _release_stage(project, request, version, principal, progress=progress)
    return request


def _train_stage(
    project: Project,
    wanted: RetrainRequest,
    version: int,
    principal: Principal,
    *,
    as_of: datetime | None,
    progress: Progress,
) -> tuple[RetrainRequest, int]:
    try:
        result = _train(project, wanted, principal, as_of=as_of, progress=progress)
    except CumulantError as error:
        return _fail(project, wanted, version, principal, error)
    name = f"{result.model.name}/{result.model.version}"
    if not result.verdict.passed:
        reason = f"the gate refused {name}: {result.verdict.text}"
        return _move(project, wanted, version, principal, stage="refused", candidate=name, message=reason)
    if result.same_as is not None:
        harmful = wanted.trigger == "harm"
        why = "it would lose as much" if harmful else "nothing new was learned"
        reason = f"{name} is the same model as the champion, {result.same_as}: {why}"
        stage: Stage = "refused" if harmful else "released"
        return _move(project, wanted, version, principal, stage=stage, candidate=name, message=reason)
    if result.promoted:
        return _move(
            project, wanted, version, principal, stage="released", candidate=name, message=f"{name} is champion"
        )
    return _move(
        project, wanted, version, principal, stage="trained", candidate=name, message=f"{name} passed the gate"
    )


def _train(
    project: Project,
    wanted: RetrainRequest,
    principal: Principal,
    *,
    as_of: datetime | None,
    progress: Progress,
) -> TrainResult:
    """The training; where its model is refused or the champion again, once more on rows since the harm began alone."""

    def trained(change: datetime | None) -> TrainResult:
        return train(
            project,
            principal=principal,
            as_of=as_of,
            promote=not _needs_approval(project),
            history=project.policies.monitoring.history,
            change=change,
            progress=progress,
        )

    result = trained(None)
    if (result.verdict.passed and result.same_as is None) or wanted.since is None:
        return result
    try:
        return trained(wanted.since)
    except (DataError, UsageError):  # too few rows are new
        return result


def _release_stage(
    project: Project, wanted: RetrainRequest, version: int, principal: Principal, *, progress: Progress
) -> tuple[RetrainRequest, int]:
    if not uses_releases(project):
        reason = f"{wanted.candidate} is the candidate: `cumulant models alias {wanted.candidate} champion` promotes it"
        return _move(project, wanted, version, principal, stage="offered", message=reason)
    if not was_served(project):
        return _note(project, wanted, version, "nothing is served here yet: `cumulant up`, and the release begins")
    return _begin_release(project, wanted, version, principal, progress=progress)


def _begin_release(
    project: Project, wanted: RetrainRequest, version: int, principal: Principal, *, progress: Progress
) -> tuple[RetrainRequest, int]:
    """The started release; where it cannot start now, why it waits."""
    if (earlier := _earlier_release(project, wanted)) is not None:
        reason = _release_text(project, wanted)
        return _move(project, wanted, version, principal, stage="released", release=earlier, message=reason)
    try:
        begun = start_release(
            project, str(wanted.candidate), principal=principal, approval=_needs_approval(project), progress=progress
        )
    except (RetryableError, RefusedError, UsageError) as error:
        return _fail(project, wanted, version, principal, error)
    release = begun.waits_for if begun.release is None else begun.release.id
    reason = _release_text(project, wanted, after=begun.waits_for)
    return _move(project, wanted, version, principal, stage="released", release=release, message=reason)


def _earlier_release(project: Project, wanted: RetrainRequest) -> str | None:
    """The release that an interrupted attempt started; it may be over."""
    number = str(wanted.candidate).rpartition("/")[2]
    releases = store.list_releases(project.journal(), project.name)
    return next(
        (
            release.id
            for release in releases
            if release.candidate.version == number and release.begun >= wanted.requested
        ),
        None,
    )


def _release_text(project: Project, wanted: RetrainRequest, *, after: str | None = None) -> str:
    text = f"{wanted.candidate} is being released" if after is None else f"{wanted.candidate} is released after {after}"
    approval = _needs_approval(project) or project.policies.release.approval is not None
    return text + ("; it waits for `cumulant release approve` on its way" if approval else "")


def _needs_approval(project: Project) -> bool:
    return project.policies.monitoring.retrain_approval


def _fail(
    project: Project, wanted: RetrainRequest, version: int, principal: Principal, error: CumulantError
) -> tuple[RetrainRequest, int]:
    reason = project.vault.redact(error.message)
    # However long it takes, the training stays requested; what lacks memory would lack it each round.
    if isinstance(error, RetryableError) and not isinstance(error, OutOfMemoryError):
        slo_hold = isinstance(error, ObjectiveMissedError)
        return _note(project, wanted, version, reason, slo_hold=slo_hold)
    return _move(project, wanted, version, principal, stage="failed", message=reason)


def _note(
    project: Project, wanted: RetrainRequest, version: int, reason: str, *, slo_hold: bool = False
) -> tuple[RetrainRequest, int]:
    """Nothing has moved, and why."""
    noted = msgspec.structs.replace(wanted, message=reason, slo_hold=slo_hold)
    return noted, _write(project, noted, version, Principal("service:monitor", tenant=project.scope.tenant))


def _move(
    project: Project, wanted: RetrainRequest, version: int, principal: Principal, **changes: object
) -> tuple[RetrainRequest, int]:
    moved = msgspec.structs.replace(wanted, slo_hold=False, **changes)
    fact = RetrainingProgressed(
        model=project.name, stage=moved.stage, candidate=moved.candidate, release=moved.release, reason=moved.message
    )
    return moved, _write(project, moved, version, principal, fact)


def _write(project: Project, wanted: RetrainRequest, version: int, principal: Principal, *facts: Fact) -> int:
    """The row's new version, stored with its alerts in one transaction."""
    findings, scope = training_alerts(project.name, wanted), (project.name, RETRAINING)
    with project.journal().transaction(actor=Actor(principal.id)) as transaction:
        after = write(transaction, TRAINING, project.name, wanted, expect=version)
        for fact in facts:
            transaction.emit(fact)
        observe(project, findings, principal=principal, examined=[scope], within=transaction)
    return after

"""The training that the rule asked for, carried out: train, let the gate compare, hand over to a release.

Every stage is written down before the next begins, and each may be done again: a process that was cut off is followed
by another one that goes on where it stood.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, DataError, RefusedError, RetryableError, UsageError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.ledger.actions import check
from cumulant.flows.monitoring.state import TRAINING, Stage, Wanted, read_wanted, write
from cumulant.flows.monitoring.training_alerts import RULE, of_training
from cumulant.flows.release import store
from cumulant.flows.release.start.start import start_release
from cumulant.flows.serving.rollout import by_releases, served
from cumulant.flows.training.train import TrainResult, train
from cumulant.monitoring.events import RetrainingMoved
from cumulant.ports.access import Principal

if TYPE_CHECKING:
    from cumulant.core.events import Fact
    from cumulant.project.project import Project

#: who trains and releases where no person asked
ACTOR = Principal("service:monitor")


def go_on(
    project: Project,
    *,
    principal: Principal,
    as_of: datetime | None = None,
    time: str | None = None,
    release: bool = True,
    progress: Progress = silent,
) -> Wanted | None:
    """Carry the training that is wanted as far as it goes; what became of it, or None where none is.

    What validation refuses is never learned from: the training fails with its words. What may pass by itself, such as a
    server that does not answer, is tried again at the next call. A model that the gate refuses
    goes no further. Where versions reach callers by releases one is begun, with the approval that `release` declares
    or `monitoring.retrain` asks for; else the training moves the alias, unless `monitoring.retrain` leaves that to
    somebody. `as_of` and `time` as in `train`; without `release` it ends there.

    Raises:
        RefusedError: the principal may not.
        LeaseHeldError: another process is at it.
    """
    check(project.access(), principal, "model.train", project.name)
    found, version = read_wanted(project.journal(), project.name)
    if found is None or not found.open:
        return found
    if found.stage == "wanted":
        found, version = _trained(project, found, version, principal, as_of=as_of, time=time, progress=progress)
    if found.stage == "trained" and release:
        found, version = _released(project, found, version, principal, progress=progress)
    return found


def _trained(
    project: Project, wanted: Wanted, version: int, principal: Principal, *, as_of: datetime | None, time: str | None,
    progress: Progress,
) -> tuple[Wanted, int]:  # fmt: skip
    try:
        made = _made(project, wanted, principal, as_of=as_of, time=time, progress=progress)
    except CumulantError as error:
        return _failed(project, wanted, version, principal, error)
    name = f"{made.model.name}/{made.model.version}"
    if not made.verdict.passed:
        said = f"the gate refused {name}: {made.verdict.text}"
        return _moved(project, wanted, version, principal, stage="refused", candidate=name, said=said)
    if made.same_as is not None:
        harmful = wanted.trigger == "harm"
        why = "it would lose as much" if harmful else "nothing new was learned"
        said = f"{name} is the same model as the champion, {made.same_as}: {why}"
        stage: Stage = "refused" if harmful else "released"
        return _moved(project, wanted, version, principal, stage=stage, candidate=name, said=said)
    if made.promoted:
        return _moved(project, wanted, version, principal, stage="released", candidate=name, said=f"{name} is champion")
    return _moved(project, wanted, version, principal, stage="trained", candidate=name, said=f"{name} passed the gate")


def _made(
    project: Project, wanted: Wanted, principal: Principal, *, as_of: datetime | None, time: str | None,
    progress: Progress,
) -> TrainResult:  # fmt: skip
    """The training; if the gate refuses its model, or it is the champion again, and it is known since when the champion
    loses, once more with the rows since then alone: what holds now may contradict what held before, and the declared
    test may lie after all rows of the change, so that none of them would be learned from.
    """

    def trained(change: datetime | None) -> TrainResult:
        return train(
            project, principal=principal, as_of=as_of, time=time, promote=not _asks(project),
            history=project.policies.monitoring.history, change=change, progress=progress,
        )  # fmt: skip

    made = trained(None)
    if (made.verdict.passed and made.same_as is None) or wanted.since is None:
        return made
    try:
        return trained(wanted.since)
    except (DataError, UsageError):  # too few rows are new
        return made


def _released(
    project: Project, wanted: Wanted, version: int, principal: Principal, *, progress: Progress
) -> tuple[Wanted, int]:
    if not by_releases(project):
        said = f"{wanted.candidate} is the candidate: `cumulant models alias {wanted.candidate} champion` promotes it"
        return _moved(project, wanted, version, principal, stage="offered", said=said)
    if not served(project):
        return _noted(project, wanted, version, "nothing is served here yet: `cumulant up`, and the release begins")
    return _begun(project, wanted, version, principal, progress=progress)


def _begun(
    project: Project, wanted: Wanted, version: int, principal: Principal, *, progress: Progress
) -> tuple[Wanted, int]:
    """The release begun; where it cannot begin now, why it waits."""
    if (earlier := _earlier(project, wanted)) is not None:
        said = _told(project, wanted)
        return _moved(project, wanted, version, principal, stage="released", release=earlier, said=said)
    try:
        begun = start_release(
            project, str(wanted.candidate), principal=principal, approval=_asks(project), progress=progress
        )
    except (RetryableError, RefusedError, UsageError) as error:
        return _failed(project, wanted, version, principal, error)
    release = begun.waits_for if begun.release is None else begun.release.id
    said = _told(project, wanted, after=begun.waits_for)
    return _moved(project, wanted, version, principal, stage="released", release=release, said=said)


def _earlier(project: Project, wanted: Wanted) -> str | None:
    """The release that an attempt began which was cut off before it could say so. It may be over by now."""
    number = str(wanted.candidate).rpartition("/")[2]
    found = store.every(project.journal(), project.name)
    return next((one.id for one in found if one.candidate.version == number and one.begun >= wanted.asked), None)


def _told(project: Project, wanted: Wanted, *, after: str | None = None) -> str:
    said = f"{wanted.candidate} is being released" if after is None else f"{wanted.candidate} is released after {after}"
    asked = _asks(project) or project.policies.release.approval is not None
    return said + ("; it waits for `cumulant release approve` on its way" if asked else "")


def _asks(project: Project) -> bool:
    return project.policies.monitoring.retrain_approval


def _failed(
    project: Project, wanted: Wanted, version: int, principal: Principal, error: CumulantError
) -> tuple[Wanted, int]:
    said = project.vault.redact(error.message)
    if isinstance(error, RetryableError):  # however long it takes: the training stays wanted
        return _noted(project, wanted, version, said)
    return _moved(project, wanted, version, principal, stage="failed", said=said)


def _noted(project: Project, wanted: Wanted, version: int, said: str) -> tuple[Wanted, int]:
    """Nothing has moved, and why."""
    held = msgspec.structs.replace(wanted, said=said)
    return held, _written(project, held, version, ACTOR)


def _moved(
    project: Project, wanted: Wanted, version: int, principal: Principal, **changes: object
) -> tuple[Wanted, int]:
    held = msgspec.structs.replace(wanted, **changes)
    fact = RetrainingMoved(
        model=project.name, stage=held.stage, candidate=held.candidate, release=held.release, reason=held.said
    )
    return held, _written(project, held, version, principal, fact)


def _written(project: Project, held: Wanted, version: int, principal: Principal, *facts: Fact) -> int:
    """The row's new version. What is to be told of it is told with it, or neither is."""
    found, scope = of_training(project.name, held), (project.name, RULE)
    with project.journal().transaction(actor=Actor(principal.name)) as transaction:
        after = write(transaction, TRAINING, project.name, held, expect=version)
        for fact in facts:
            transaction.emit(fact)
        observe(project, found, principal=principal, looked=[scope], within=transaction)
    return after

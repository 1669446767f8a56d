"""The row of a new release, with its champion's history and the evaluation of both versions."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.core.traffic import Limits
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.release import store
from cumulant.flows.release.controller.effects import queue_message, with_warm_version
from cumulant.flows.release.start import evidence_blocks
from cumulant.flows.release.start.champion_history import champion_history
from cumulant.flows.stack.desired_state import DesiredState
from cumulant.flows.traffic.clients import exchanges_of, traffic_of
from cumulant.release.decide import end_release
from cumulant.release.evidence.accumulate import with_history
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_evaluation import block_seconds, fewest_pairs
from cumulant.release.state import Release

if TYPE_CHECKING:
    from datetime import datetime

    from cumulant.core.traffic import Arm, Routes
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.policy import ReleasePolicy


def begin_release(
    project: Project,
    model: str,
    *,
    policy: ReleasePolicy,
    arms: tuple[Arm, Arm],
    author: str,
    evaluation: PairedEvaluation | None,
    at: datetime,
    principal: Principal,
    routed: str = "",
    slo_override: str = "",
) -> Release:
    """Write the row of a pending release, champion and candidate being `arms`; one that is under way is superseded.
    `routed`: the champion of the routes, as it was before the champion of the release was read.

    Raises:
        CumulantError: the gateway's log or earlier pairs cannot be read. LeaseHeldError: another process wrote the row,
            began a release of this candidate, or changed the champion meanwhile.
    """
    present, last = traffic_of(project).in_force(model), store.read(project.journal(), model)
    _check_champion(model, arms[0].version, present, routed)
    release = Release(
        id=f"{at:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}",
        model=model,
        champion=arms[0],
        candidate=arms[1],
        policy=policy,
        looks_a_block=evidence_blocks.looks_a_block(policy),
        looks_by_metric=evidence_blocks.looks_by_metric(project, policy, arms[0].version),
        slo_override=slo_override,
        author=author,
        begun=at,
        revision=max(_revision_above(present, arms[0].version), last[0].revision if last else 0),
        limits=present.limits if present else Limits(),
    )
    release = _with_history(project, with_evaluation(release, evaluation))
    with project.journal().transaction(actor=Actor(principal.id), run=release.id) as transaction:
        row = transaction.get(store.RELEASE, model)
        version = 0 if row is None else row.version
        before = None if row is None else msgspec.convert(row.value, Release)
        check_not_under_way(before, arms[1].version)
        if before is not None:
            check_wound_up(before)
            ended = end_release(before, "superseded", f"version {arms[1].version} came", at=at)
            if not before.over:
                version = store.write(transaction, before, ended, expect=version)
                release = msgspec.structs.replace(release, revision=max(release.revision, ended.revision))
            if "notified" not in ended.settled:  # its own controller would do it, and the row is another's now
                queue_message(transaction, project.receivers(), ended, at)
        store.write(transaction, None, release, expect=version)
        transaction.delete(store.WAITING, model)
    if before is not None and not before.over:
        _keep_superseded_server(project, before, until=at + before.policy.keep_warm)
    return release


def check_not_under_way(present: Release | None, version: str) -> None:
    """Begun again, a release would lose all that it has shown, and its requests would go back to the champion.

    Raises:
        LeaseHeldError: the model's newest release is of this candidate, and under way.
    """
    if present is None or present.over or present.candidate.version != version:
        return
    raise LeaseHeldError(
        f"version {version} of {present.model} is on its way already, in the release {present.id}",
        subject=present.id,
        hint="`cumulant release watch` follows it; to begin again, `cumulant release abort --reason TEXT` first",
    )


def check_wound_up(old: Release) -> None:
    """Check that the last release is not one whose candidate is about to be the champion.

    Raises:
        LeaseHeldError: its alias, and maybe its routes, must still move; that would be lost with the row.
    """
    if old.status == "promoted" and "://" not in old.candidate.version and "alias" not in old.settled:
        raise LeaseHeldError(
            f"the release {old.id} promoted version {old.candidate.version}, and the registry does not say so yet",
            subject=old.id,
            hint="the controller does it as soon as the registry answers: `cumulant ps` shows whether it runs",
        )


def routed_version(project: Project, model: str) -> str:
    """The version that the gateway takes for the champion; empty where there are no routes."""
    routes = traffic_of(project).in_force(model)
    return "" if routes is None else routes.champion.version


def _check_champion(model: str, champion: str, present: Routes | None, routed: str) -> None:
    """Refuse a champion that another version has taken the place of, as by a rollback while the release was prepared.

    Routes to external servers say nothing of the champion among the project's versions, nor the other way round: there
    only a change is refused. A change after `present` was read is seen by the controller, since its revision is higher.
    """
    now = champion if present is None else present.champion.version
    if now == champion or (now == routed and ("://" in now or "://" in champion)):
        return
    raise champion_changed_error(model, champion, now)


def champion_changed_error(model: str, champion: str, now: str | None) -> LeaseHeldError:
    """`now`: the champion's version; None where there is no champion any more."""
    present = "there is no champion now" if now is None else f"version {now} is the champion now, as after a rollback"
    return LeaseHeldError(
        f"the release of {model} was prepared against version {champion}, and {present}",
        subject=f"{model}/{champion}",
        hint="run `cumulant up` first" if now is None else f"start it again to compare with version {now}",
    )


def _revision_above(present: Routes | None, champion: str) -> int:
    """The revision of a pending release: that of the routes, or one more where they have another champion, so that
    routes of another champion which have this revision are newer.
    """
    if present is None:
        return 0
    return present.revision + (present.champion.version != champion)


def _keep_superseded_server(project: Project, superseded: Release, *, until: datetime) -> None:
    """Keep the superseded candidate's server for a while, so that operators can examine it."""
    version = superseded.candidate.version

    def change(desired: DesiredState) -> DesiredState:
        if desired.candidate == version:
            return desired
        return msgspec.structs.replace(desired, versions=with_warm_version(desired, version, until))

    deployment_of(project).change(project.name, change)


def with_evaluation(release: Release, evaluation: PairedEvaluation | None) -> Release:
    """The release with how long outcomes depend on each other and how skewed they are, as the past shows it."""
    if evaluation is None:
        return release
    looks, quality = dict(release.looks_by_metric), metrics(release.policy)["quality"]
    seconds = None
    if quality.block is None and quality.margin is not None:
        seconds = block_seconds(evaluation, margin=quality.margin)
    if seconds is not None:
        looks["quality"] = max(release.looks_a_block, round(seconds / release.policy.look))
    return msgspec.structs.replace(
        release,
        evaluation=evaluation,
        looks_by_metric=looks,
        fewest_by_metric={"quality": fewest_pairs(evaluation)},
    )


def _with_history(project: Project, release: Release) -> Release:
    history, cursor = champion_history(
        exchanges_of(project),
        traffic_of(project).in_force(release.model),
        release.champion.version,
        seconds=release.policy.look,
        quantile=metrics(release.policy)["latency"].quantile,
    )
    return with_history(msgspec.structs.replace(release, cursor=cursor, start_cursor=cursor), history)

"""The row of a new release, with its champion's history and the evaluation of both versions."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.release import store
from cumulant.flows.release.start import evidence_blocks
from cumulant.flows.release.start.champion_history import champion_history
from cumulant.release.evidence.accumulate import with_history
from cumulant.release.evidence.metrics import metrics
from cumulant.release.paired.paired_evaluation import block_seconds, fewest_pairs
from cumulant.release.state import Release

if TYPE_CHECKING:
    from datetime import datetime

    from cumulant.core.traffic import Arm
    from cumulant.project.project import Project
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.policy import ReleasePolicy


def new_release(
    project: Project,
    model: str,
    *,
    policy: ReleasePolicy,
    arms: tuple[Arm, Arm],
    author: str,
    evaluation: PairedEvaluation | None,
    at: datetime,
) -> Release:
    """A pending release, champion and candidate being `arms`; the gateway's log is read from the next request on.

    Raises:
        CumulantError: the gateway's log or earlier pairs cannot be read.
    """
    present, last = project.traffic().in_force(model), store.read(project.journal(), model)
    revision = max(present.revision if present else 0, last[0].revision if last else 0)
    release = msgspec.convert(
        {
            "id": f"{at:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}",
            "model": model,
            "champion": arms[0],
            "candidate": arms[1],
            "policy": policy,
            "looks_a_block": evidence_blocks.looks_a_block(policy),
            "looks_by_metric": evidence_blocks.looks_by_metric(project, policy, arms[0].version),
            "author": author,
            "begun": at,
            "revision": revision,
        },
        Release,
    )
    return _with_history(project, with_evaluation(release, evaluation))


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
    """The release with what its champion did before."""
    history, cursor = champion_history(
        project.traffic(),
        release.model,
        release.champion.version,
        seconds=release.policy.look,
        quantile=metrics(release.policy)["latency"].quantile,
    )
    return with_history(msgspec.structs.replace(release, cursor=cursor), history)

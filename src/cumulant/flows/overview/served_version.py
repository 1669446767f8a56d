"""Which version of a project serves, or would serve once `cumulant up` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.overview.changes import Change
from cumulant.flows.release.controller.rollback_outbox import recorded_rollbacks

if TYPE_CHECKING:
    from cumulant.project.project import Project
    from cumulant.release.state import Release


def desired_champion(project: Project) -> str | None:
    """The champion of the desired state, which `up`, releases and rollbacks set; None where nothing was served.

    Raises:
        CumulantError: the desired state is damaged, or the journal does not answer.
    """
    desired = deployment_of(project).read(project.name)
    return desired.champion if desired.model == project.name else None


def released_version(project: Project, release: Release) -> str:
    """Of servers of others, which the desired state does not know: by the newest release, or a rollback after it."""
    after = [each for each in recorded_rollbacks(project.journal(), project.name) if each.at >= release.begun]
    if after:
        return after[-1].version
    return release.candidate.version if release.status == "promoted" else release.champion.version


def aliased_version(changes: Sequence[Change]) -> str | None:
    """The version that the alias `champion` was moved to last, with which `up` begins."""
    return next((change.champion for change in changes if change.champion), None)

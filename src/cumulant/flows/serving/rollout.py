"""The way of a project's versions to callers: by releases, or by the alias that a training moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import IntegrityError
from cumulant.flows.stack.desired_state import read_desired_state

if TYPE_CHECKING:
    from cumulant.project.project import Project


def uses_releases(project: Project) -> bool:
    """Whether the alias `champion` is for a release to move: the project file says so, or `up` served it."""
    return project.file.declares("release") or was_served(project)


def was_served(project: Project) -> bool:
    """Whether a version of the model was ever served here by `up`. True also where the desired state is damaged."""
    try:
        desired = read_desired_state(project.state, project.name)
    except IntegrityError:
        return True
    return desired.model == project.name and bool(desired.champion or desired.versions)

"""The check that a candidate is another model than the champion: against itself it would prove nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, NotFoundError, RefusedError
from cumulant.core.traffic import CANDIDATE
from cumulant.flows.registry.equal_models import same_versions
from cumulant.flows.stack.desired_state import read_desired_state

if TYPE_CHECKING:
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project


def check_distinct(project: Project, champion: str, candidate: ModelVersion) -> None:
    """Refuse a candidate that is the version `champion`, or a copy of its packaged model.

    Raises:
        RefusedError: it is.
    """
    name, uri = project.name, f"{candidate.name}/{candidate.version}"
    hint = f"train another with `cumulant train`, or name one that `cumulant models list --name {name}` shows"
    if candidate.version == champion:
        raise RefusedError(f"version {champion} of {name} is the champion already", subject=uri, hint=hint)
    try:
        served = project.registry().resolve(f"{name}/{champion}")
    except NotFoundError:  # deleted from the registry while it is served
        return
    if same_versions(project, served, candidate):
        raise RefusedError(
            f"version {candidate.version} of {name} is the same model as the champion, version {champion}",
            subject=uri,
            hint=hint,
        )


def same_model_warning(project: Project) -> str | None:
    """Why a release without a name would be refused: the version with the alias `candidate` is the served champion."""
    try:
        champion = read_desired_state(project.state, project.name).champion
        if champion is not None:
            check_distinct(project, champion, project.registry().resolve(f"{project.name}@{CANDIDATE}"))
    except RefusedError as refused:
        return f"{refused.message}, so `cumulant release start` refuses it: {refused.hint}"
    except CumulantError:  # no candidate yet, or a registry that does not answer: a plan needs neither
        pass
    return None

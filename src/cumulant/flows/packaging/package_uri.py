"""The download of a model from a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.project.tracking import registry_here

if TYPE_CHECKING:
    from cumulant.project.project import Project


def fetch(uri: str, into: Path, project: Project | None) -> Path:
    """The folder of the model at a models:/ or runs:/ URI, under `into`.

    Raises:
        NotFoundError: there is no such model or run.
        UsageError: there is no registry to ask.
        EngineUnavailableError: the registry does not answer.
    """
    registry = registry_here() if project is None else project.registry()
    return registry.download(uri, into)

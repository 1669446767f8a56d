"""Whether two model versions are the same: equal files, answers and checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import IntegrityError, NotFoundError
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.registry.models import servable_folder

if TYPE_CHECKING:
    from cumulant.flows.training.package_step import PackageResult
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project


def same_as_champion(project: Project, package: PackageResult, champion: ModelVersion | None) -> bool:
    """Whether callers would get the same answers and warnings, to the last bit; a missing champion differs."""
    if champion is None:
        return False
    return _same(lambda: servable_folder(project, champion), lambda: project.objects().path(package.servable.key))


def same_versions(project: Project, version: ModelVersion, other: ModelVersion) -> bool:
    """As `same_as_champion`, of two registered versions."""
    return _same(lambda: servable_folder(project, version), lambda: servable_folder(project, other))


def _same(first_folder: Callable[[], Path], second_folder: Callable[[], Path]) -> bool:
    try:
        from cumulant.servable.folder import load_description

        first, second = (load_description(folder(), verify=False) for folder in (first_folder, second_folder))
    except (NotFoundError, IntegrityError):
        return False
    return _answering(first) == _answering(second)


def _answering(servable: Servable | GraphServable) -> Servable | GraphServable:
    return msgspec.structs.replace(servable, version="", lineage={}, example={}, parity=None)

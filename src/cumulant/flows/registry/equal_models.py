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

    def packaged() -> Servable | GraphServable:
        with project.objects().open(package.servable.key) as folder:
            return _described(folder)

    return _same(lambda: _described(servable_folder(project, champion)), packaged)


def same_versions(project: Project, version: ModelVersion, other: ModelVersion) -> bool:
    """As `same_as_champion`, of two registered versions."""
    return _same(
        lambda: _described(servable_folder(project, version)), lambda: _described(servable_folder(project, other))
    )


def _same(first: Callable[[], Servable | GraphServable], second: Callable[[], Servable | GraphServable]) -> bool:
    try:
        return _answering(first()) == _answering(second())
    except (NotFoundError, IntegrityError):
        return False


def _described(folder: Path) -> Servable | GraphServable:
    from cumulant.servable.folder import load_description

    return load_description(folder, verify=False)


def _answering(servable: Servable | GraphServable) -> Servable | GraphServable:
    return msgspec.structs.replace(servable, version="", lineage={}, example={}, parity=None)

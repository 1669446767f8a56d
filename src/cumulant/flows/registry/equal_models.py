"""Whether two model versions are the same: equal files, answers and checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import IntegrityError, NotFoundError
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.registry.version_servable import describe_servable

if TYPE_CHECKING:
    from cumulant.flows.training.package_step import PackageResult
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project


def same_as_champion(project: Project, package: PackageResult, champion: ModelVersion | None) -> bool:
    """Whether callers would get the same answers and warnings, to the last bit; a missing champion differs."""
    if champion is None:
        return False

    def packaged() -> Servable | GraphServable:
        from cumulant.servable.folder import load_description

        with project.objects().open(package.servable.key) as folder:
            return load_description(folder, verify=False)

    return _same(lambda: describe_servable(project, champion, verify=False), packaged)


def same_versions(project: Project, version: ModelVersion, other: ModelVersion) -> bool:
    """As `same_as_champion`, of two registered versions."""
    return _same(
        lambda: describe_servable(project, version, verify=False),
        lambda: describe_servable(project, other, verify=False),
    )


def _same(first: Callable[[], Servable | GraphServable], second: Callable[[], Servable | GraphServable]) -> bool:
    try:
        return _answering(first()) == _answering(second())
    except (NotFoundError, IntegrityError):
        return False


def _answering(servable: Servable | GraphServable) -> Servable | GraphServable:
    return msgspec.structs.replace(servable, version="", lineage={}, example={}, parity=None)

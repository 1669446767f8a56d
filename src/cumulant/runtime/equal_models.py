"""Whether a training made the champion again: the same files, answered and checked for in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant import packaging
from cumulant.core.errors import IntegrityError, NotFoundError
from cumulant.core.servable import Servable
from cumulant.runtime.models import servable_folder

if TYPE_CHECKING:
    from cumulant.ports.registry import ModelVersion
    from cumulant.project import Project
    from cumulant.runtime.packing import Package


def same_as_champion(project: Project, package: Package, champion: ModelVersion | None) -> bool:
    """Whether callers would get the same answers and warnings from both, to the last bit.

    Lineage, example and parity tell how a servable was made. A champion that is not there any more is another one.
    """
    if champion is None:
        return False
    try:
        served = packaging.load_description(servable_folder(project, champion), verify=False)
        trained = packaging.load_description(project.objects().path(package.servable.key), verify=False)
    except (NotFoundError, IntegrityError):
        return False
    if not isinstance(served, Servable) or not isinstance(trained, Servable):
        return False
    return _answering(served) == _answering(trained)


def _answering(servable: Servable) -> Servable:
    return msgspec.structs.replace(servable, version="", lineage={}, example={}, parity=None)

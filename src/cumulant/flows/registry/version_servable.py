"""The servable of a registered version: the project's own object, else a copy of what the registry has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import NotFoundError
from cumulant.core.ids import digest, short

if TYPE_CHECKING:
    from cumulant.core.servable import GraphServable, Servable
    from cumulant.ports.objects import ObjectStore
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project

#: the folder of this machine with servables of versions that were not made here
FETCHED = "fetched"


@contextmanager
def open_servable(project: Project, version: ModelVersion) -> Iterator[Path]:
    """The folder of the version's servable on this machine, while the block lasts. It is not to be changed.

    Raises:
        NotFoundError: neither the project's objects nor the registry has it.
    """
    with ExitStack() as stack:
        key = version.tags.get("cumulant.servable", "")
        stored = _open_stored(project.objects(), key, stack) if key else None
        yield _fetched(project, version) if stored is None else stored


def describe_servable(project: Project, version: ModelVersion, *, verify: bool = True) -> Servable | GraphServable:
    """The description of the version's servable, as `servable.folder.load_description`."""
    from cumulant.servable.folder import load_description

    with open_servable(project, version) as folder:
        return load_description(folder, verify=verify)


def describe_row_servable(project: Project, version: ModelVersion, *, verify: bool = True) -> Servable:
    """As `describe_servable`, of a version that reads rows.

    Raises:
        IntegrityError: it reads tensors, or as `describe_servable`.
    """
    from cumulant.servable.folder import load_servable

    with open_servable(project, version) as folder:
        return load_servable(folder, verify=verify)


def is_stored(project: Project, version: ModelVersion) -> bool:
    """Whether the version's servable is among the project's objects, so that opening it takes no registry."""
    key = version.tags.get("cumulant.servable", "")
    return bool(key) and project.objects().find(key) is not None


def copy_name(version: ModelVersion) -> str:
    """The folder of a version's copy. By version and content: the registry may be another one by now."""
    return f"{version.version}-{short(digest(version.tags.get('cumulant.servable', '')))}"


def _open_stored(objects: ObjectStore, key: str, stack: ExitStack) -> Path | None:
    try:
        return stack.enter_context(objects.open(key))
    except NotFoundError as error:
        if error.subject != key:  # there is no such store
            raise
        return None


def _fetched(project: Project, version: ModelVersion) -> Path:
    into = project.state / FETCHED / version.name / copy_name(version)
    known = [
        description.parent
        for description in into.glob("*/servable.json")
        if not description.parent.name.startswith(".")
    ]
    return known[0] if known else project.registry().fetch(version, into)

"""Repair of a stack that is down: damaged files are set aside and rebuilt from the registry and from each other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, IntegrityError
from cumulant.flows.stack.desired_state import read_desired_state
from cumulant.flows.stack.status import read_status

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: where the gateway keeps its routes, if the environment names no other folder
_GATEWAY = "gateway"


def set_aside_status(project: Project) -> list[Path]:
    """Rename the status where it cannot be read; the new name. Nobody may run the project meanwhile."""
    return _rename_aside(_unreadable(lambda: read_status(project.state)))


def set_aside_damaged(project: Project) -> list[Path]:
    """Rename the desired state and the gateway's files that cannot be read; the new names. Nothing is deleted.

    No process of the project may run meanwhile: a gateway would answer from memory what its files do not hold.

    Raises:
        CumulantError: the gateway's files are not in the project's state.
    """
    desired = _unreadable(lambda: read_desired_state(project.state, project.name))
    return _rename_aside([*desired, *_unreadable_routes(project)])


def _unreadable(read: Callable[[], object]) -> list[Path]:
    try:
        read()
    except IntegrityError as error:
        return [Path(str(error.subject))]
    return []


def _unreadable_routes(project: Project) -> list[Path]:
    try:
        project.gateway().in_force(project.name)
    except CumulantError:
        paths = list((project.state / _GATEWAY).glob("*.json"))
        if not paths:
            raise
        return paths
    return []


def _rename_aside(paths: list[Path]) -> list[Path]:
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return [path.rename(path.with_name(f"{path.name}.damaged-{now}")) for path in paths]

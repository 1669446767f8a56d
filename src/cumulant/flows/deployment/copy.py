"""The copy of the desired state and the servers on each machine of `deploy: hosts://`.

A rollback is possible from it while the journal does not answer; what such a rollback changes waits in it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.system.atomic_files import replace_file, storage_errors
from cumulant.core.system.json_files import read_json
from cumulant.flows.deployment.deployment import HostsDeployment
from cumulant.flows.stack.desired_state import FOLDER, DesiredState, Rollback, locked_folder
from cumulant.ports.deploy import ServerState

if TYPE_CHECKING:
    from cumulant.project.project import Project

_FILE = "deployment.json"


class UnsentRollback(msgspec.Struct, frozen=True, kw_only=True):
    """A rollback that the desired state does not know yet. `until`: how long the version it left stays up."""

    rollback: Rollback
    until: datetime


class DeploymentCopy(msgspec.Struct, frozen=True, kw_only=True):
    desired: DesiredState
    servers: tuple[ServerState, ...] = ()
    #: the oldest first
    unsent: tuple[UnsentRollback, ...] = ()


def read_copy(state: Path) -> DeploymentCopy | None:
    """None where there is none that can be read."""
    return read_json(state / FOLDER / _FILE, DeploymentCopy)


def change_copy(state: Path, model: str, change: Callable[[DeploymentCopy], DeploymentCopy]) -> None:
    """Write what `change` makes of the copy, which no other process changes meanwhile.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = state / FOLDER / _FILE
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(path.parent):
            before = read_copy(state) or DeploymentCopy(desired=DesiredState(model=model))
            after = change(before)
            if after != before:
                replace_file(path, msgspec.json.encode(after))


def renew_copy(project: Project, deployment: HostsDeployment) -> DesiredState:
    """Bring the copy up to date; the desired state as the journal has it.

    Raises:
        CumulantError: the journal does not answer, or the folder cannot be written.
    """
    desired, servers = deployment.read(project.name), tuple(deployment.present(project.name))
    change_copy(
        project.state, project.name, lambda copy: msgspec.structs.replace(copy, desired=desired, servers=servers)
    )
    return desired


def send_rollbacks(
    project: Project,
    deployment: HostsDeployment,
    apply: Callable[[DesiredState, Rollback, datetime], DesiredState],
) -> list[Rollback]:
    """Bring rollbacks that happened without the journal into the desired state; those that were sent.

    Killed between the two writes, it sends one again, and `apply` is given a state that has it already.

    Raises:
        CumulantError: the journal does not answer, or the folder cannot be written.
    """
    copy = read_copy(project.state)
    sent = []
    for unsent in () if copy is None else copy.unsent:
        rollback = unsent.rollback

        def change(desired: DesiredState, unsent: UnsentRollback = unsent) -> DesiredState:
            known = any(other.id == unsent.rollback.id for other in desired.rollbacks)
            return desired if known else apply(desired, unsent.rollback, unsent.until)

        deployment.change(project.name, change)
        change_copy(
            project.state,
            project.name,
            lambda copy, rollback=rollback: msgspec.structs.replace(  # type: ignore[misc]
                copy, unsent=tuple(other for other in copy.unsent if other.rollback != rollback)
            ),
        )
        sent.append(rollback)
    return sent

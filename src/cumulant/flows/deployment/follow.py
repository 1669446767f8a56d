"""A machine follows the desired state that the machines share: it copies servables here and starts their servers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError
from cumulant.flows.deployment.deployment import LocalDeployment
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state, read_desired_state
from cumulant.flows.stack.restart import hold_restart_lock, replace_server
from cumulant.flows.stack.served_versions import server_line, service_by_spec
from cumulant.ports.deploy import ServedSpec

if TYPE_CHECKING:
    from cumulant.project.project import Project


def follow(project: Project, desired: DesiredState, address: str) -> tuple[str, ...]:
    """Bring this machine's state to the desired state; its servers listen on `address`. What could not be done, in
    words: call it again.

    A version that is new here is copied here first. One with other arguments gets a new server, which takes the place
    of the old one when it is ready.
    """
    faults = []
    for served in desired.current(datetime.now(UTC)):
        try:
            _serve(project, served, address)
        except CumulantError as error:
            faults.append(f"version {served.version} cannot be served: {project.vault.redact(error.full_text)}")
    state = read_desired_state(project.state, project.name)
    if _followed(state, desired) != state:
        change_desired_state(project.state, project.name, lambda present: _followed(present, desired))
    return tuple(faults)


def _serve(project: Project, served: ServedVersion, address: str) -> None:
    spec = served.spec
    if spec is None:
        return
    mine = read_desired_state(project.state, project.name).versions.get(served.version)
    if mine is None or mine.host != address:
        _forget(project, served.version)
        LocalDeployment(project, address).ensure(project.name, [spec])
    elif mine.spec != spec:
        _replace(project, mine, spec)


def _replace(project: Project, mine: ServedVersion, spec: ServedSpec) -> None:
    newer = msgspec.structs.replace(mine, spec=spec, command=server_line(service_by_spec(project, spec)))
    try:
        with hold_restart_lock(project.state):
            replace_server(project, mine, newer)
    except LeaseHeldError:
        return  # an `up --restart`, after which it is tried again


def _forget(project: Project, version: str) -> None:
    """Forget a version whose server listens on an address that this machine no longer has."""
    if version in read_desired_state(project.state, project.name).versions:
        change_desired_state(
            project.state,
            project.name,
            lambda state: msgspec.structs.replace(
                state, versions={name: served for name, served in state.versions.items() if name != version}
            ),
        )


def _followed(state: DesiredState, desired: DesiredState) -> DesiredState:
    """This machine's state with the arms and times of the desired one, as far as it has the versions."""
    versions = {
        name: msgspec.structs.replace(served, warm_until=desired.versions[name].warm_until)
        for name, served in state.versions.items()
        if name in desired.versions
    }
    return msgspec.structs.replace(
        state,
        champion=desired.champion if desired.champion in versions else state.champion,
        candidate=desired.candidate if desired.candidate in versions else None,
        former=desired.former,
        champions=desired.champions,
        versions=versions,
    )

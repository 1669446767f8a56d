"""What should be served of a project and what is, with servers on one machine or on many.

With `deploy: local://` the desired state is a file of this machine. With `deploy: hosts://` it is a row of the journal,
which every machine that serves follows; each keeps a copy for the time in which the journal does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from cumulant.core.errors import EngineUnavailableError, IntegrityError
from cumulant.core.events import Actor
from cumulant.core.traffic import Arm
from cumulant.flows.deployment.host_report import read_reports, read_shared, servers_of
from cumulant.flows.stack.desired_state import (
    LOOPBACK,
    DesiredState,
    ServedVersion,
    change_desired_state,
    next_edition,
    read_desired_state,
)
from cumulant.flows.stack.lock import own_status
from cumulant.ports.deploy import Deploy, ServedSpec, ServerState
from cumulant.ports.driver import Need
from cumulant.project.host_name import host_name

if TYPE_CHECKING:
    from cumulant.flows.stack.status import Status
    from cumulant.project.project import Project

#: rows of the journal, by model
DESIRED_STATE = "desired_state"
HOSTS = "hosts://"
_CHECK_SECONDS = 0.2
_ACTOR = Actor("service:deployment")

Change = Callable[[DesiredState], DesiredState]


class Deployment(Deploy, Protocol):
    """The desired state, and the servers that follow it."""

    #: whether the servers run on several machines
    shared: bool

    def read(self, model: str) -> DesiredState:
        """The desired state; an empty one where nothing was served.

        Raises:
            IntegrityError: it is damaged. CumulantError: the journal does not answer.
        """
        ...

    def change(self, model: str, change: Change) -> DesiredState:
        """Write what `change` makes of the desired state, which no other process changes meanwhile; durable on return.

        Raises:
            StorageError, IntegrityError, CumulantError: as `read`, and where it cannot be written.
        """
        ...


class LocalDeployment:
    """All servers on this machine, under the supervisor of `cumulant up`; they listen on `address`."""

    shared = False

    def __init__(self, project: Project, address: str = LOOPBACK) -> None:
        self._project, self._address = project, address

    def read(self, model: str) -> DesiredState:
        return read_desired_state(self._project.state, model)

    def change(self, model: str, change: Change) -> DesiredState:
        return change_desired_state(self._project.state, model, change)

    def ensure(self, model: str, specs: Sequence[ServedSpec]) -> None:
        from cumulant.flows.stack.served_versions import add_to_machine  # loads serving, which few callers need

        del model  # a machine's state is of the project's own
        for spec in specs:
            add_to_machine(self._project, spec, self._address)

    def present(self, model: str) -> Sequence[ServerState]:
        return server_states(self.read(model).versions.values(), own_status(self._project.state))


class HostsDeployment:
    """Servers on every machine where `cumulant up --role servers` runs."""

    shared = True

    def __init__(self, project: Project) -> None:
        self._project = project

    def read(self, model: str) -> DesiredState:
        row = self._project.journal().get(DESIRED_STATE, model)
        return DesiredState(model=model) if row is None else read_shared(row, DesiredState)

    def change(self, model: str, change: Change) -> DesiredState:
        with self._project.journal().transaction(actor=_ACTOR) as transaction:
            row = transaction.get(DESIRED_STATE, model)
            before = DesiredState(model=model) if row is None else read_shared(row, DesiredState)
            desired = next_edition(change(before))
            transaction.put(DESIRED_STATE, model, msgspec.to_builtins(desired), expect=row.version if row else 0)
        return desired

    def ensure(self, model: str, specs: Sequence[ServedSpec]) -> None:
        def put(desired: DesiredState) -> DesiredState:
            versions = dict(desired.versions)
            for spec in specs:
                before = versions.get(spec.version, ServedVersion(version=spec.version))
                versions[spec.version] = msgspec.structs.replace(before, spec=spec)
            return msgspec.structs.replace(desired, versions=versions)

        self.change(model, put)

    def present(self, model: str) -> Sequence[ServerState]:
        return servers_of(read_reports(self._project.journal())) if model == self._project.name else []


def deployment_of(project: Project) -> Deployment:
    """The deployment that the environment names."""
    return HostsDeployment(project) if is_shared(project) else LocalDeployment(project)


def is_shared(project: Project) -> bool:
    """Whether the servers run on several machines, which share the journal."""
    return project.file.environment.deploy == HOSTS


def driver_needs(project: Project) -> list[Need]:
    """What several machines need of the stores that all of them use."""
    if not is_shared(project):
        return []
    reason = f"deploy: {HOSTS} divides the work between machines, which share no folder"
    return [Need(port, "hosts", reason) for port in ("journal", "tables", "objects", "log")]


def with_servers(project: Project, arm: Arm, *, within: float, waiting: Callable[[], None] = lambda: None) -> Arm:
    """An arm with its servers, which need not be ready: as soon as each machine that serves has one that is, or
    else after `within` seconds with those that there are.

    Raises:
        EngineUnavailableError: no machine has one by then.
        CumulantError: the states of the servers cannot be read.
    """
    if arm.endpoints:
        return arm
    deployment, deadline = deployment_of(project), time.monotonic() + within
    while True:
        present = deployment.present(project.name)
        ready = {server.host: server.endpoint for server in present if server.version == arm.version and server.ready}
        late = time.monotonic() > deadline
        if ready and (late or ready.keys() >= {server.host for server in present}):
            return msgspec.structs.replace(arm, endpoints=tuple(sorted(ready.values())))
        if late:
            raise EngineUnavailableError(
                f"no machine has a server of version {arm.version} that is ready after {within:g} s",
                subject=arm.version,
                hint="`cumulant ps` shows the machines; `cumulant up --role servers` starts one",
            )
        waiting()
        time.sleep(_CHECK_SECONDS)


def uses_releases(project: Project) -> bool:
    """Whether a release moves the alias `champion`: the project file declares it, or `up` served it."""
    return project.file.declares("release") or was_served(project)


def was_served(project: Project) -> bool:
    """Whether a version of the model was ever served by `up`. True also where the desired state is damaged."""
    try:
        desired = deployment_of(project).read(project.name)
    except IntegrityError:
        return True
    return desired.model == project.name and bool(desired.champion or desired.versions)


def server_states(versions: Iterable[ServedVersion], status: Status | None) -> list[ServerState]:
    """This machine's servers of these versions; `status` is its supervisor's, None while none runs."""
    children = {child.url: child for child in status.children} if status else {}
    return [
        ServerState(
            version=served.version,
            endpoint=served.endpoint,
            ready=child is not None and child.ready,
            host=host_name(),
            arguments={} if served.spec is None else served.spec.arguments,
            restarts=0 if child is None else child.restarts,
        )
        for served in versions
        for child in [children.get(served.endpoint)]
    ]

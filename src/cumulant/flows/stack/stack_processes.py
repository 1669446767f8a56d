"""The processes that `up` starts, in this order: one server a version of the desired state, gateway, controller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError
from cumulant.core.network.hosts import ANY, is_loopback
from cumulant.flows.serving.serve import USES
from cumulant.flows.stack.desired_state import FOLDER, DesiredState, ServedVersion
from cumulant.flows.stack.gateway_key import key_path
from cumulant.flows.stack.reconcile import WantedProcess
from cumulant.ports.driver import Need
from cumulant.ports.traffic import ListenOptions
from cumulant.serving.sockets import split_address

if TYPE_CHECKING:
    from cumulant.project.project import Project

LOGS = "logs"


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """What is supervised: a project's state folder, and the programs beside its servers."""

    state: Path
    #: where processes record what they serve from, so that `clean` does not delete it
    uses: Path
    model: str
    environment: str
    gateway: tuple[str, ...]
    controller: tuple[str, ...]
    #: key of the hashes in the prediction log, where no file holds it
    salt: bytes | None = None
    #: names by which callers may come, as the servers' options
    hosts: tuple[str, ...] = ()

    @property
    def logs(self) -> Path:
        return logs_folder(self.state)


def driver_needs(project: Project) -> list[Need]:
    """What `up` needs of the journal, in a project that declares how it serves or releases."""
    if not any(map(project.file.declares, ("serving", "release"))):
        return []
    return [Need("journal", "processes", "the controller of `up` and commands write at the same time")]


def logs_folder(state: Path) -> Path:
    return state / FOLDER / LOGS


def wanted_processes(stack: Stack, desired: DesiredState, now: datetime) -> dict[str, WantedProcess]:
    """The processes that should run at `now`, by name, in the order in which they start."""
    servers = [_server(served, stack) for served in desired.running(now)]
    beside = [
        WantedProcess(name="gateway", kind="gateway", command=stack.gateway),
        WantedProcess(name="controller", kind="controller", command=stack.controller, generation=desired.controller),
    ]
    return {process.name: process for process in (*servers, *beside)}


def _server(served: ServedVersion, stack: Stack) -> WantedProcess:
    address = served.endpoint.removeprefix("http://")
    line = [*served.command, "--http", address, *(word for host in stack.hosts for word in ("--allow-host", host))]
    if "--behind-gateway" in line:
        line += ["--gateway-key-file", str(key_path(stack.state))]
    return WantedProcess(
        name=served.name,
        kind="server",
        command=tuple(line),
        generation=served.generation,
        url=served.endpoint,
        version=served.version,
    )


def build_stack(project: Project, http: str) -> Stack:
    """What is to be supervised of a project.

    Raises:
        MissingPartError: the gateway's engine is not installed.
        UsageError: its driver is not.
    """
    opening = ListenOptions(
        http=http, key_file=project.salt_source.path(), gateway_key_file=str(key_path(project.state))
    )
    return Stack(
        state=project.state,
        uses=project.state / USES,
        model=project.name,
        environment=project.environment,
        gateway=tuple(project.gateway().command(opening)),
        controller=controller_command(project),
        salt=_salt(project),
        hosts=server_hosts(project.policies.serving.hosts, http),
    )


def check_gateway(project: Project) -> None:
    """Refuse to begin anything that needs a gateway where none can be started.

    Raises:
        MissingPartError: its engine is not installed.
        UsageError: its driver is not.
    """
    project.gateway().command(ListenOptions())


def server_hosts(declared: Sequence[str], http: str) -> tuple[str, ...]:
    """Host names by which callers reach the servers behind a gateway at `http`."""
    host, _ = split_address(http)
    return tuple(declared) if is_loopback(host) else (*declared, ANY)


def controller_command(project: Project) -> tuple[str, ...]:
    return (sys.executable, "-m", "cumulant.flows.release", str(project.root), "--env", project.environment)


def _salt(project: Project) -> bytes | None:
    """Where it is a secret that cannot be had now, servers start without: personal values are then not logged."""
    if project.salt_source.is_file:
        return None
    try:
        return project.salt()
    except NotFoundError as error:
        sys.stderr.write(f"{error.message}; personal values are hidden in the prediction log\n")
        return None

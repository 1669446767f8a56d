"""The processes that `up` starts, in this order: one server a version of the desired state, gateway, controller."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import NotFoundError, missing_part
from cumulant.core.network.hosts import ANY, is_loopback
from cumulant.flows.serving.serve import USES
from cumulant.flows.stack.desired_state import FOLDER, DesiredState, ServedVersion
from cumulant.flows.stack.gateway_key import CALLER_KEY, key_path, shared_key
from cumulant.flows.stack.reconcile import WantedProcess
from cumulant.ports.driver import Need
from cumulant.ports.traffic import ListenOptions
from cumulant.serving.sockets import split_address
from cumulant.serving.telemetry.tracing import collector_url

if TYPE_CHECKING:
    from cumulant.project.project import Project

LOGS = "logs"
#: exit code of a supervisor that does not start since another one does its work
REFUSED = 3
#: what a machine of `deploy: hosts://` can do
SERVERS, GATEWAY, CONTROLLER = "servers", "gateway", "controller"
ROLES = (GATEWAY, SERVERS, CONTROLLER)


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """What is supervised: a project's state folder, and the programs beside its servers."""

    state: Path
    #: where processes record what they serve from, so that `clean` does not delete it
    uses: Path
    model: str
    environment: str
    #: empty: another machine has it
    gateway: tuple[str, ...]
    controller: tuple[str, ...]
    #: brings the gateway the routes that the machines share; empty: the gateway's files have them
    agent: tuple[str, ...] = ()
    #: what this machine does of `deploy: hosts://`; empty: everything is on this machine
    roles: tuple[str, ...] = ()
    #: key of the gateway's tokens, where all machines have the same; None: a new one with each supervisor
    gateway_key: bytes | None = None
    #: that keys of callers are hashed with; None: the project keeps its salt in a file, or has none now
    caller_key: bytes | None = None
    #: servers on an address that others can reach take requests without a token
    insecure: bool = False
    #: key of the hashes in the prediction log, where no file holds it
    salt: bytes | None = None
    #: programs beside them: the console, and those that observe the others, such as Prometheus
    further: tuple[WantedProcess, ...] = ()
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
    # The state may be of when this machine had that role.
    has_servers = not stack.roles or SERVERS in stack.roles
    servers = [_server(served, stack) for served in desired.running(now)] if has_servers else []
    beside = [
        WantedProcess(name="gateway", kind="gateway", command=stack.gateway),
        WantedProcess(name="agent", kind="agent", command=stack.agent),
        WantedProcess(name="controller", kind="controller", command=stack.controller, generation=desired.controller),
    ]
    return {process.name: process for process in (*servers, *beside, *stack.further) if process.command}


def _server(served: ServedVersion, stack: Stack) -> WantedProcess:
    address = served.endpoint.removeprefix("http://")
    line = [*served.command, "--http", address, *(word for host in stack.hosts for word in ("--allow-host", host))]
    if stack.insecure and not is_loopback(served.host):
        line += ["--insecure"]
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


def build_stack(project: Project, http: str, roles: Sequence[str] = (), *, insecure: bool = False) -> Stack:
    """What is to be supervised of a project on this machine.

    Raises:
        MissingPartError: the gateway's engine is not installed.
        UsageError: its driver is not.
    """
    salt = _salt(project)
    caller_key = None if salt is None else shared_key(salt, CALLER_KEY)
    opening = ListenOptions(
        http=http,
        key_file=str(key_path(project.state, CALLER_KEY)) if caller_key else project.salt_source.path(),
        gateway_key_file=str(key_path(project.state)),
        traces=collector_url(os.environ),
        agent=bool(roles),
    )
    has_gateway, has_controller = (not roles or role in roles for role in (GATEWAY, CONTROLLER))
    return Stack(
        state=project.state,
        uses=project.state / USES,
        model=project.name,
        environment=project.environment,
        gateway=tuple(project.gateway().command(opening)) if has_gateway else (),
        controller=program(project, "release") if has_controller else (),
        agent=program(project, "traffic") if roles and has_gateway else (),
        roles=tuple(roles),
        gateway_key=shared_key(project.salt()) if roles else None,
        insecure=insecure,
        caller_key=caller_key,
        salt=salt,
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


def program(project: Project, name: str) -> tuple[str, ...]:
    """The command of a program of `flows` for this project."""
    return (sys.executable, "-m", f"cumulant.flows.{name}", str(project.root), "--env", project.environment)


def check_console() -> None:
    """Raises MissingPartError where what serves the console is not installed."""
    if find_spec("starlette") is None:
        raise missing_part("starlette", "console")


def console_process(project: Project, address: str) -> WantedProcess:
    """The console and the API of the project."""
    command = (sys.executable, "-P", "-m", "cumulant.cli", "api", "--http", address, "--no-link")
    place = ("--project", str(project.root), "--env", project.environment)
    return WantedProcess(name="console", kind="console", command=(*command, *place), url=f"http://{address}")


def _salt(project: Project) -> bytes | None:
    """Where it is a secret that cannot be had now, servers start without: personal values are then not logged."""
    if project.salt_source.is_file:
        return None
    try:
        return project.salt()
    except NotFoundError as error:
        sys.stderr.write(f"{error.message}; personal values are hidden in the prediction log\n")
        return None

"""The verbs `up`, `ps` and `down`: start a project's processes, list them, end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, LeaseHeldError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.system import child_processes
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.deployment.host_lifecycle import HostOptions, host_options, host_waits_for, prepare_host
from cumulant.flows.deployment.versions import first_champion
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.processes import Process, is_gone, is_here, process_of
from cumulant.flows.observe.programs import find_programs
from cumulant.flows.serving.caller_tokens import check_tokens, needs_token
from cumulant.flows.stack.child_process import log_file
from cumulant.flows.stack.desired_state import DesiredState
from cumulant.flows.stack.event_reporting import report_killed
from cumulant.flows.stack.folder_claim import claim_folder
from cumulant.flows.stack.gateway_check import is_reachable, routes_to
from cumulant.flows.stack.lock import already_runs_error, end_left_behind, find_supervisor, own_status
from cumulant.flows.stack.reconcile import UNAWAITED
from cumulant.flows.stack.repair import set_aside_damaged, set_aside_status
from cumulant.flows.stack.restart import TRIES, not_ready_error, renew_servers
from cumulant.flows.stack.server_commands import refresh_commands
from cumulant.flows.stack.stack_processes import (
    CONTROLLER,
    GATEWAY,
    REFUSED,
    SERVERS,
    check_console,
    check_gateway,
    logs_folder,
)
from cumulant.flows.stack.status import Status, read_status, without_ended_processes
from cumulant.flows.traffic.clients import traffic_of
from cumulant.serving.sockets import address_of, bind, split_address

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

_READY_SECONDS, _CHECK_SECONDS = 90.0, 0.1
_DOWN_SECONDS = 150.0


class StartedStack(msgspec.Struct, frozen=True):
    """A stack that answers, and the supervisor's process where it is a child of this one."""

    status: Status
    process: subprocess.Popen[bytes]
    #: what happened to a state that was copied, moved or restored, and settings that changed since it ran
    notes: tuple[str, ...] = ()


@verb("stack.up")
def up(
    project: Project,
    model: str = "",
    *,
    principal: Principal,
    http: str = "",
    insecure: bool = False,
    observe: bool = False,
    console: str = "",
    detached: bool = False,
    repair: bool = False,
    roles: Sequence[str] = (),
    advertise: str = "",
    progress: Progress = silent,
) -> StartedStack:
    """Start the supervisor and wait until the champion is reached through the gateway.

    `model`: what serves first, where nothing has been served yet; default: the registry's champion, else the newest.
    `repair`: damaged files are set aside first. Unless `detached`, everything ends with this process. Off loopback
    callers need a token, of `serving.token_file` or CUMULANT_TOKEN, or `insecure`: anyone may call.

    With `deploy: hosts://`, `roles` are what this machine runs (default: everything), and `advertise` is the address
    at which other machines reach its servers.

    With `observe`, Prometheus and, where it is installed, Alertmanager run beside the other processes; with `console`,
    an address, the console and the API.

    What served before gets the present settings and interpreter and, once it serves, stored features of the newest
    data: no caller waits for them, and it serves on where they cannot be had.

    Raises:
        LeaseHeldError: it runs already.
        PortInUseError: something else listens at the gateway's address.
        MissingPartError: the gateway's engine is not installed, or Prometheus with `observe`.
        UsageError: another version than `model` serves, or the address, the tokens or the roles cannot be used.
        EngineUnavailableError: a process does not come to answer; everything has ended again.
        IntegrityError: the desired state is damaged.
    """
    if console:
        check_console()
        console = _free_address(console)
    options = host_options(project, roles, advertise, insecure=insecure, observe=observe, console=console)
    if observe:
        find_programs()
    running = find_supervisor(project.state)
    if running is not None:
        raise already_runs_error(running)
    aside = set_aside_status(project) if repair else []
    before = own_status(project.state)
    if count := end_left_behind(project.state):
        progress(f"ended {count} processes that a killed supervisor left")
    try:
        for path in [*aside, *set_aside_damaged(project)] if repair else ():
            progress(f"set aside {path}")
        address = http or project.policies.serving.http
        return _bring_up(project, model, principal, address, options=options, detached=detached, progress=progress)
    finally:
        # Also where nothing comes up: the status, the only source of it, is gone. Last: a busy journal must not
        # delay the start.
        report_killed(project, before)


def _free_address(console: str) -> str:
    """The address with its port, a free one for 0: the console keeps it when it is started again.

    Raises:
        PortInUseError: something else listens there.
    """
    host, port = split_address(console)
    with bind(host, port, insecure=True, option="--console") as listener:
        return address_of(host, listener.getsockname()[1])


def _bring_up(
    project: Project,
    model: str,
    principal: Principal,
    address: str,
    *,
    options: HostOptions,
    detached: bool,
    progress: Progress,
) -> StartedStack:
    notes: list[str] = []
    claim_folder(project, notes.append)
    if options.has(GATEWAY):
        host, port = split_address(address)
        bind(host, port, insecure=options.insecure or needs_token(project), option="--http").close()
    if options.has(SERVERS):
        check_tokens(project)
    known = deployment_of(project).read(project.name).champion is not None and options.has(CONTROLLER)
    if options.roles:
        prepare_host(project, model, options, principal=principal, report=notes.append, progress=progress)
    else:
        check_gateway(project)
        first_champion(project, model, principal=principal, progress=progress)
        apply_first(project, refresh_commands(project, notes.append))
    if options.has(CONTROLLER):
        _check_model_serves(project, model, deployment_of(project).read(project.name))
    process = start(project, address, options, detached=detached)
    try:
        status = _await(project, process, options, progress)
    except BaseException:
        _terminate(process.pid)
        process.wait()
        raise
    if known:
        try:
            renew_servers(project, principal=principal, report=notes.append, progress=progress)
        except CumulantError as error:
            notes.append(f"stored features stay as they were: {error.message}")
        status = own_status(project.state) or status
    return StartedStack(status, process, tuple(notes))


@verb("stack.down")
def down(project: Project, *, principal: Principal, progress: Progress = silent) -> int:
    """End everything, requests under way first; returns how many processes there were, the supervisor among them.

    Raises:
        EngineUnavailableError: the supervisor does not come to its end.
        UsageError: it runs on another machine, or in another container.
    """
    pid, status = find_supervisor(project.state), own_status(project.state)
    count = 0
    if status is None and read_status(project.state) is not None:
        progress("this state is a copy: the processes of the original are left alone")
    if pid is not None and status is not None and not is_here(status.supervisor):
        raise UsageError(
            f"the supervisor of this project runs elsewhere, as {status.supervisor}",
            subject=project.name,
            hint="run `cumulant down` on that machine, or in that container",
        )
    if pid is not None:
        progress(f"ending the supervisor, process {pid}")
        count = 1 + sum(child.pid is not None for child in status.children) if status else 1
        supervisor = process_of(pid)
        _terminate(pid)
        _await_end(supervisor, project, progress)
    else:
        report_killed(project, status)
    return count + end_left_behind(project.state)


@verb("stack.show")
def ps(project: Project, *, principal: Principal) -> Status | None:
    """The processes in the supervisor's last status; None where none runs and none has been left.

    Processes of the project that this one is a copy of are not listed.

    Raises:
        IntegrityError: its status is damaged.
    """
    status = own_status(project.state)
    return None if status is None else without_ended_processes(status)


def traffic_shares(project: Project) -> dict[str, float]:
    """Share of keys (0 to 1) by version under the routes in force; empty without routes or an answering gateway."""
    try:
        routes = traffic_of(project).in_force(project.name)
    except CumulantError:
        return {}
    if routes is None:
        return {}
    candidate = 0.0 if routes.candidate is None else routes.weight / 100
    shares = {routes.champion.version: 1 - candidate}
    return shares if routes.candidate is None else shares | {routes.candidate.version: candidate}


def apply_first(project: Project, desired: DesiredState) -> None:
    """Apply routes to the desired servers: the gateway keeps those of an earlier run, where nothing listens."""
    traffic = traffic_of(project)
    present = traffic.in_force(project.name)
    wanted = routes_to(desired, present, key=project.policies.release.key)
    if wanted is not None and wanted != present:
        traffic.apply(wanted)


def start(project: Project, http: str, options: HostOptions, *, detached: bool) -> subprocess.Popen[bytes]:
    """The supervisor's process, in a group of its own: its parent passes Ctrl-C on."""
    log = log_file(logs_folder(project.state), "supervisor")
    log.rotate()
    line = [sys.executable, "-m", "cumulant.flows.stack", str(project.root), "--env", project.environment]
    line += ["--http", http, *options.words, *([] if detached else ["--parent", str(os.getpid())])]
    with log.open() as stream:
        return child_processes.start(line, stderr=stream)


def _check_model_serves(project: Project, model: str, desired: DesiredState) -> None:
    if not model:
        return
    version = str(project.registry().resolve(model).version)
    if version != desired.champion:
        raise UsageError(
            f"version {desired.champion} of {project.name} serves, not {version}",
            subject=model,
            hint="a release changes what serves: `cumulant release start`; `cumulant up` alone goes on as it was",
        )


def _await(project: Project, process: subprocess.Popen[bytes], options: HostOptions, progress: Progress) -> Status:
    deadline, waiting_for = time.monotonic() + _READY_SECONDS, ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _ended_error(project, process)
        status = read_status(project.state)
        if status is not None and status.supervisor.pid == process.pid:
            late = host_waits_for(project, options, status) if options.roles else _waits_for(status)
            if waiting_for != (waiting_for := late):
                progress(waiting_for or "all processes answer")
            if not waiting_for:
                return status
            for child in status.children:
                if child.kind not in UNAWAITED and not child.ready and child.restarts >= TRIES:
                    raise not_ready_error(project, child.name, f"has ended {child.restarts} times")
        time.sleep(_CHECK_SECONDS)
    late = next(iter(_unready(read_status(project.state))), "gateway")
    raise not_ready_error(project, late, f"did not answer within {_READY_SECONDS:g} s")


def _ended_error(project: Project, process: subprocess.Popen[bytes]) -> CumulantError:
    if process.returncode == REFUSED:
        return LeaseHeldError(
            log_file(logs_folder(project.state), "supervisor").last_line(),
            subject=project.name,
            hint="`cumulant ps` shows what runs",
        )
    return not_ready_error(project, "supervisor", "has ended")


def _unready(status: Status | None) -> list[str]:
    """Names of the processes that callers need and that are not ready."""
    if status is None:
        return ["supervisor"]
    return [child.name for child in status.children if child.kind not in UNAWAITED and not child.ready]


def _waits_for(status: Status) -> str:
    """What callers need and is not ready yet, a request through the gateway last."""
    rest = _unready(status)
    if not status.children or rest or not status.url:
        return f"waiting for {', '.join(rest) or 'the gateway'}"
    return "" if is_reachable(status.url, status.model) else "waiting for an answer through the gateway"


def _terminate(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _await_end(supervisor: Process, project: Project, progress: Progress) -> None:
    """Wait for its end, and report what makes it take longer or leave something undone."""
    pid, trouble = supervisor.pid, ""
    deadline = time.monotonic() + _DOWN_SECONDS
    while not is_gone(supervisor):
        status = read_status(project.state)
        if status is not None and trouble != (trouble := status.trouble) and trouble:
            progress(trouble)
        if time.monotonic() > deadline:
            raise EngineUnavailableError(
                f"the supervisor, process {pid}, has not ended within {_DOWN_SECONDS:g} s",
                subject=str(pid),
                hint=f"end it with `kill -9 {pid}`, then `cumulant down` tidies up",
            )
        time.sleep(_CHECK_SECONDS)

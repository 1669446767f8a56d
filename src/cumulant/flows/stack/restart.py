"""Rolling restart: each server is replaced by one with the present settings, and no request is lost.

The new server starts beside the old one; once it is ready it takes its place in the desired state and in the gateway's
routes, and the old one ends when it has answered its requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import (
    ConflictError,
    CumulantError,
    EngineUnavailableError,
    LeaseHeldError,
    UsageError,
)
from cumulant.core.progress import Progress, silent
from cumulant.core.system.atomic_files import storage_errors
from cumulant.core.system.locks import lock_file
from cumulant.core.traffic import Arm, Routes
from cumulant.flows.deployment.deployment import is_shared
from cumulant.flows.deployment.versions import renew_everywhere
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.processes import is_here
from cumulant.flows.release import store
from cumulant.flows.serving.caller_tokens import check_tokens
from cumulant.flows.stack.child_process import log_file
from cumulant.flows.stack.desired_state import (
    FOLDER,
    DesiredState,
    ServedVersion,
    change_desired_state,
    read_desired_state,
)
from cumulant.flows.stack.lock import find_supervisor, own_status
from cumulant.flows.stack.served_versions import catch_up, free_port, table_of, with_newest_features
from cumulant.flows.stack.server_commands import describe_changes, present_command
from cumulant.flows.stack.stack_processes import logs_folder
from cumulant.flows.stack.status import ChildStatus, Status
from cumulant.flows.traffic.clients import traffic_of

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

LOCK = "restart.lock"
_READY_SECONDS, _END_SECONDS, _CHECK_SECONDS = 90.0, 90.0, 0.1
#: starts of a process that never answered, after which the wait ends
TRIES = 4
#: attempts to change routes that another process changes at the same time
_ATTEMPTS = 5


class RestartResult(msgspec.Struct, frozen=True):
    """`notes`: what the new processes have otherwise than those before, in words."""

    status: Status
    notes: tuple[str, ...]


@verb("stack.up")
def restart(project: Project, *, principal: Principal, progress: Progress = silent) -> RestartResult:
    """Replace every server of a running stack, one after another, and the controller.

    Raises:
        ConflictError: nothing runs, or a release is under way.
        LeaseHeldError: another restart is under way.
        UsageError: the supervisor runs on another machine, or the tokens of callers cannot be used.
        EngineUnavailableError: a new server does not come to answer; the one before still serves.
    """
    _check_running(project)
    check_tokens(project)
    with hold_restart_lock(project.state):
        _check_no_release(project)
        _recover(project)
        notes: list[str] = []
        done: set[str] = set()
        while (before := _next_server(project, done)) is not None:
            _check_no_release(project)
            newer = before
            if not is_shared(project):  # else the desired state names them
                newer = with_newest_features(
                    project, before, principal=principal, report=notes.append, progress=progress
                )
            after = _replacement(project, newer)
            notes += [f"version {before.version}: {text}" for text in describe_changes(before.command, after.command)]
            progress(f"{after.name} in place of {before.name}")
            _replace(project, before, after)
            done.add(before.version)
        progress("the controller reads the project file again")
        _change(project, lambda desired: msgspec.structs.replace(desired, controller=desired.controller + 1))
    return RestartResult(_check_running(project), tuple(notes))


def renew_servers(
    project: Project,
    version: str = "",
    *,
    principal: Principal,
    report: Callable[[str], None],
    progress: Progress = silent,
) -> None:
    """Replace the servers of a running stack, or of one version, whose stored features are older than the newest data.

    Raises:
        ConflictError: a release is under way.
        UsageError: the supervisor runs on another machine.
        LeaseHeldError, EngineUnavailableError: as `restart`.
    """
    if is_shared(project):
        renew_everywhere(project, version, principal=principal, report=report, progress=progress)
        return
    if find_supervisor(project.state) is None:
        return
    _check_running(project)
    with hold_restart_lock(project.state):
        _check_no_release(project)
        _recover(project)
        done: set[str] = set()
        while (before := _next_server(project, done)) is not None:
            done.add(before.version)
            if version in ("", before.version):
                _renew(project, before, principal=principal, report=report, progress=progress)


def _renew(
    project: Project, before: ServedVersion, *, principal: Principal, report: Callable[[str], None], progress: Progress
) -> None:
    newer = with_newest_features(project, before, principal=principal, report=report, progress=progress)
    if table_of(newer.command) == table_of(before.command):
        return
    progress(f"version {before.version}: a server with stored features of the newest data")
    _replace(project, before, _replacement(project, newer))
    report(f"version {before.version} reads stored features of the newest data from now on")


@contextmanager
def hold_restart_lock(state: Path) -> Iterator[None]:
    """Be the only restart of the project while the block runs; the lock ends with the process.

    Raises:
        LeaseHeldError: another one is under way.
        StorageError: the folder cannot be written.
    """
    path = state / FOLDER / LOCK
    busy = LeaseHeldError(
        "servers of this project are being replaced already, by an `up` or a `release start`",
        subject=str(path),
        hint="wait until that ends, then run the command again",
    )
    with ExitStack() as stack:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path, busy))
        yield


def _next_server(project: Project, done: set[str]) -> ServedVersion | None:
    desired = read_desired_state(project.state, project.name)
    return next((server for server in desired.current(datetime.now(UTC)) if server.version not in done), None)


def _check_running(project: Project) -> Status:
    status = own_status(project.state)
    if find_supervisor(project.state) is None or status is None:
        raise ConflictError(
            f"nothing of {project.name} runs here, so there is nothing to restart",
            subject=project.name,
            hint="`cumulant up` starts it, with the present settings",
        )
    if not is_here(status.supervisor):
        raise UsageError(
            f"the supervisor of this project runs elsewhere, as {status.supervisor}",
            subject=project.name,
            hint="run `cumulant up --restart` on that machine, or in that container",
        )
    return status


def _check_no_release(project: Project) -> None:
    """A restart in the middle of a release would count as the servers' fault."""
    row = store.read(project.journal(), project.name)
    if row is not None and not row[0].over:
        raise ConflictError(
            f"release {row[0].id} is under way, and a restart would count against its versions",
            subject=row[0].id,
            hint=f"wait for its end, or end it with `cumulant rollback {project.name} --reason TEXT`, then restart",
        )


def _replacement(project: Project, served: ServedVersion) -> ServedVersion:
    desired = read_desired_state(project.state, project.name)
    return msgspec.structs.replace(
        served,
        command=present_command(project, served),
        port=free_port(f"{project.state}", desired.ports, served.host),
        generation=served.generation + 1,
    )


def replace_server(project: Project, before: ServedVersion, newer: ServedVersion) -> None:
    """Replace a server of this machine by one of the same version, whose stored features or servable are `newer`.

    Only the holder of the restart lock may call it.

    Raises:
        EngineUnavailableError: the new server does not come to answer; the one before still serves.
    """
    _recover(project)
    _replace(project, before, _replacement(project, newer), unless_release=False)


def _replace(project: Project, before: ServedVersion, after: ServedVersion, *, unless_release: bool = True) -> None:
    _change(project, lambda desired: msgspec.structs.replace(desired, starting=(*desired.starting, after)))
    renews = table_of(before.command) != table_of(after.command)
    try:
        _await_ready(project, after)
        if unless_release:
            _check_no_release(project)  # one may have begun meanwhile
        if renews:
            catch_up(project, after)
        _change(project, lambda desired: _with(desired, after, retiring=(*desired.retiring, before)))
        _move_routes(project, before, after)
    except BaseException:
        _put_back(project, before, after)
        raise
    _end(project, before, after)
    if renews:  # what the server before took in until it ended
        catch_up(project, after)


def _recover(project: Project) -> None:
    """Go on where a restart was killed: with the new server where it answers, else with the one before."""
    desired = read_desired_state(project.state, project.name)
    for before in desired.retiring:
        after = desired.versions.get(before.version, before)
        server = _server_at(project, after)
        if server is not None and server.ready:
            _move_routes(project, before, after)
            _end(project, before, after)
        else:
            _put_back(project, before, after)
    _change(project, lambda desired: msgspec.structs.replace(desired, starting=()))


def _end(project: Project, before: ServedVersion, after: ServedVersion) -> None:
    """End the former server once it has answered its requests."""
    _change(project, lambda desired: msgspec.structs.replace(desired, retiring=_without(desired.retiring, before)))

    def ended() -> bool:
        with suppress(CumulantError):  # a rollback that read the desired state earlier sends requests to the old server
            _move_routes(project, before, after)
        return _server_at(project, before) is None

    _await(ended, _END_SECONDS)


def _put_back(project: Project, before: ServedVersion, after: ServedVersion) -> None:
    _move_routes(project, after, before)
    _change(project, lambda desired: _with(desired, before, retiring=_without(desired.retiring, before), without=after))


def _without(servers: tuple[ServedVersion, ...], served: ServedVersion) -> tuple[ServedVersion, ...]:
    return tuple(server for server in servers if server.port != served.port)


def _with(
    desired: DesiredState,
    served: ServedVersion,
    *,
    retiring: tuple[ServedVersion, ...],
    without: ServedVersion | None = None,
) -> DesiredState:
    present = desired.versions.get(served.version, served)
    now = msgspec.structs.replace(
        present, spec=served.spec, command=served.command, port=served.port, generation=served.generation
    )
    return msgspec.structs.replace(
        desired,
        versions={**desired.versions, served.version: now},
        starting=_without(desired.starting, without or served),
        retiring=retiring,
    )


def _change(project: Project, change: Callable[[DesiredState], DesiredState]) -> None:
    change_desired_state(project.state, project.name, change)


def _server_at(project: Project, served: ServedVersion) -> ChildStatus | None:
    status = own_status(project.state)
    return next((child for child in status.children if child.url == served.endpoint), None) if status else None


def _await_ready(project: Project, served: ServedVersion) -> None:
    def unready(what: str) -> CumulantError:
        advice = "; correct the settings and restart again"
        return not_ready_error(project, served.name, f"{what}, and the server before serves on", advice)

    def ready() -> bool:
        server = _server_at(project, served)
        if server is not None and not server.ready and server.restarts >= TRIES:
            raise unready(f"has ended {server.restarts} times")
        return server is not None and server.ready

    if not _await(ready, _READY_SECONDS):
        raise unready(f"did not answer within {_READY_SECONDS:g} s")


def not_ready_error(project: Project, name: str, what: str, advice: str = "") -> CumulantError:
    """Error for a process that does not come to answer, with the last line of its log."""
    log = log_file(logs_folder(project.state), name)
    last_line = log.last_line()
    text = f"{name} {what}" + (f": {last_line}" if last_line else "")
    return EngineUnavailableError(text, subject=name, hint=f"its log is {log.path}{advice}")


def _move_routes(project: Project, before: ServedVersion, after: ServedVersion) -> None:
    """Route the requests of one server to another; all else in the routes stays, as a rollback may have written it.

    Where servers run on several machines, the controller does it as soon as it sees the report of this one.
    """
    traffic = traffic_of(project)
    if is_shared(project):
        if not _await(lambda: not _has_endpoint(traffic.in_force(project.name), before.endpoint), _END_SECONDS):
            raise EngineUnavailableError(
                f"routes still lead to {before.endpoint} after {_END_SECONDS:g} s",
                subject=before.name,
                hint="`cumulant ps` shows whether a machine with the role controller runs",
            )
        return
    for attempt in range(_ATTEMPTS):
        present = traffic.in_force(project.name)
        wanted = None if present is None else _moved(present, before.endpoint, after.endpoint)
        if wanted is None or wanted == present:
            return
        try:
            traffic.apply(msgspec.structs.replace(wanted, revision=wanted.revision + 1))
        except LeaseHeldError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _has_endpoint(routes: Routes | None, url: str) -> bool:
    return routes is not None and any(url in arm.endpoints for arm in routes.arms)


def _moved(routes: Routes, before: str, after: str) -> Routes:
    def moved(arm: Arm) -> Arm:
        return msgspec.structs.replace(arm, endpoints=tuple(after if url == before else url for url in arm.endpoints))

    candidate = None if routes.candidate is None else moved(routes.candidate)
    return msgspec.structs.replace(routes, champion=moved(routes.champion), candidate=candidate)


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_CHECK_SECONDS)
    return True

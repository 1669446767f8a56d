"""`cumulant doctor`: checks of this machine and project, each with its fix."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import CumulantError, ProjectFileError
from cumulant.flows.reports.terminal import clean
from cumulant.flows.reports.wording import size
from cumulant.ports.plugins import scheme_of

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.project.connections import Connection
    from cumulant.project.project import Project

app = application("doctor", "Check this machine and project.")

LEAST_PYTHON = (3, 11)
LEAST_DISK = 2 * 1024**3
#: below it a journal, a log or a model may not be written at all
FULL_DISK = 64 * 1024**2
EXTRAS = {
    "serve": ("grpc", "grpc_health", "grpc_reflection", "httptools", "numpy", "onnxruntime", "pyarrow"),
    "train": (
        "httpx",
        "jinja2",
        "lightgbm",
        "mlflow",
        "onnx",
        "optuna",
        "pandas",
        "polars",
        "pyarrow",
        "sklearn",
        "scipy",
    ),
    "xgboost": ("xgboost",),
    "catboost": ("catboost",),
    "objects": ("obstore",),
    "postgres": ("psycopg",),
    "valkey": ("valkey",),
}
NEEDED = ("serve", "train")


class DoctorFinding(msgspec.Struct, frozen=True):
    """The result of one check. `warn`: works, with a limit; `fail`: must be fixed first."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


@command(app, action=None, examples=["cumulant doctor", "cumulant doctor --port 8080 --json"])
def doctor(
    call: Invocation,
    port: Annotated[int, typer.Option(metavar="PORT", help="The port that `serve` will use.", min=1, max=65535)] = 8080,
) -> None:
    """Check Python, parts, write access, disk, port, time zones, project file and drivers.

    Exit code 0 where everything works, 1 where something must be fixed first.
    """
    findings = list(run_checks(call, port))
    failed = [finding for finding in findings if finding.state == "fail"]
    call.answer({"healthy": not failed, "checks": findings}, lambda console: _show(console, findings))
    if failed:
        raise typer.Exit(1)


def run_checks(call: Invocation, port: int) -> Iterator[DoctorFinding]:
    """Every check, in the order in which to fix what fails."""
    yield python()
    yield from parts()
    yield writable(call.directory)
    # The state may be a link to another disk.
    state = call.directory / ".cumulant"
    yield disk(state if state.exists() else call.directory)
    yield free_port(port)
    yield zones()
    yield from project(call)


def python() -> DoctorFinding:
    version = sys.version.split()[0]
    if sys.version_info >= LEAST_PYTHON:
        return DoctorFinding("Python", "ok", version)
    return DoctorFinding("Python", "fail", version, f"use Python {'.'.join(map(str, LEAST_PYTHON))} or newer")


def parts() -> Iterator[DoctorFinding]:
    """Which extras are installed. An import name is looked up, nothing is imported."""
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if not missing:
            yield DoctorFinding(f"part {extra}", "ok", "installed")
        else:
            state: Literal["warn", "fail"] = "fail" if extra in NEEDED else "warn"
            line = f'pip install "cumulant[{"local" if extra in NEEDED else extra}]"'
            yield DoctorFinding(f"part {extra}", state, f"without {', '.join(missing)}", line)


#: nothing can be removed by a command that has to write to the journal first
_FREE_SPACE = "free space on that disk: delete other files, then `cumulant data clean` shows what can be removed"


def writable(folder: Path) -> DoctorFinding:
    """Whether a file can be written there: on a full disk an empty one can be made."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".cumulant-") as file:
            file.write(b"x" * 65_536)
            file.flush()
            return DoctorFinding("write access", "ok", str(folder))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = _FREE_SPACE if full else "choose a folder of your own with --project, or change its permissions"
        return DoctorFinding("write access", "fail", f"{folder}: {error.strerror}", fix)


def disk(folder: Path) -> DoctorFinding:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free >= LEAST_DISK:
        return DoctorFinding("free disk", "ok", size(free))
    return DoctorFinding("free disk", "fail" if free < FULL_DISK else "warn", size(free), _FREE_SPACE)


def free_port(port: int) -> DoctorFinding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            text = f"{port}: {error.strerror}"
            return DoctorFinding("port", "warn", text, f"cumulant serve --port {port + 1 if port < 65535 else 8080}")
    return DoctorFinding("port", "ok", f"{port} is free")


def zones() -> DoctorFinding:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        return DoctorFinding("time zones", "fail", "this system has no zone data", "pip install tzdata")
    return DoctorFinding("time zones", "ok", "zone data found")


def project(call: Invocation) -> Iterator[DoctorFinding]:
    """The project file and its drivers, where there is a project."""
    if not (call.directory / "cumulant.yaml").is_file():
        yield DoctorFinding("project", "warn", "no cumulant.yaml here", "cumulant new NAME --from FILE --target COLUMN")
        return
    try:
        loaded = call.project()
    except CumulantError as error:
        yield _fault("project file", error)
        return
    from cumulant.flows.deployment.deployment import is_shared

    with loaded:
        scope = loaded.scope
        where = f"environment {scope.environment}, tenant {scope.tenant}, region {scope.region}"
        yield DoctorFinding("project file", "ok", f"{loaded.name}, {where}")
        yield features_file(loaded)
        drivers = _result("drivers", lambda: _drivers(loaded))
        yield drivers
        if is_shared(loaded):
            yield _result("salt", lambda: _salt(loaded))
        # Only `up` and releases need a gateway.
        yield _result("gateway", lambda: _gateway(loaded), otherwise="warn")
        yield from _stores(loaded, connect=drivers.state == "ok")
        yield from processes(loaded)
        yield private(loaded)


def features_file(loaded: Project) -> DoctorFinding:
    path = loaded.policies.features
    if path.is_file():
        return DoctorFinding("features", "ok", loaded.file.spec.features)
    return DoctorFinding("features", "fail", f"{path} is not there", "write it, or name another file as features")


def _result(check: str, detail: Callable[[], str], *, otherwise: Literal["warn", "fail"] = "fail") -> DoctorFinding:
    try:
        return DoctorFinding(check, "ok", detail())
    except CumulantError as error:
        return _fault(check, error, otherwise)


def _state(loaded: Project) -> str:
    from cumulant.project.file.text_values import masked

    return f"{loaded.journal().head().seq:,} events in {masked(loaded.endpoints.journal)}"


def _stores(loaded: Project, *, connect: bool) -> Iterator[DoctorFinding]:
    """The journal, and whether what the environment names on other machines answers."""
    from cumulant.project.connections import check_connections

    connections = {connection.setting: connection for connection in (check_connections(loaded) if connect else [])}
    journal = connections.pop("journal", None)
    if journal is not None and journal.error is not None:
        yield _fault("state", journal.error)
    else:
        yield _result("state", lambda: _state(loaded))  # the first run creates it
    yield from map(_connection, connections.values())


def _connection(connection: Connection) -> DoctorFinding:
    if connection.error is None:
        return DoctorFinding(connection.setting, "ok", f"{connection.url} answers")
    fault = _fault(connection.setting, connection.error)
    return msgspec.structs.replace(fault, detail=f"{connection.url}: {fault.detail}")


def _drivers(loaded: Project) -> str:
    from cumulant.flows.project.driver_needs import driver_needs
    from cumulant.project.driver_checks import check_drivers

    check_drivers(loaded, driver_needs(loaded))
    return "every one that the environment names is installed and can do what the project needs"


def _salt(loaded: Project) -> str:
    from cumulant.flows.deployment.host_lifecycle import check_salt

    check_salt(loaded)
    return "every machine that has the same secret hashes alike"


def _gateway(loaded: Project) -> str:
    from cumulant.flows.stack.stack_processes import check_gateway

    check_gateway(loaded)
    return f"{scheme_of(loaded.endpoints.traffic)}:// is installed"


def processes(loaded: Project) -> Iterator[DoctorFinding]:
    """What is wrong with the processes of `up` on this machine, where they run."""
    from cumulant.flows.stack.status import read_status, without_ended_processes

    try:
        status = read_status(loaded.state)
    except CumulantError as error:
        yield _fault("processes", error)
        return
    if status is None:
        return
    status = without_ended_processes(status)
    if not status.running:
        yield DoctorFinding("processes", "fail", "those of `cumulant up` have ended without `down`", "cumulant up")
        return
    if status.trouble:
        yield DoctorFinding("processes", "fail", status.trouble, "cumulant ps")
    for child in status.faulty:
        state = " ".join(filter(None, (f"{child.name} is {child.state}", child.silence)))
        detail = ": ".join(filter(None, (state, child.trouble or child.message)))
        yield DoctorFinding("processes", "warn" if child.kind == "controller" else "fail", detail, "cumulant ps")
    if not status.trouble and not status.faulty:
        late = "".join(f"; {child.name} is {child.state}" for child in status.children if not child.ready)
        ready = sum(child.ready for child in status.children)
        yield DoctorFinding("processes", "ok", f"{ready} of `cumulant up` answer{late}")


def private(loaded: Project) -> DoctorFinding:
    """Whether other users can read the state: databases, snapshots, logs."""
    from cumulant.project.private import open_to_others

    paths = open_to_others(loaded.root, loaded.endpoints, loaded.drivers) if loaded.state.exists() else []
    if not paths:
        return DoctorFinding("state access", "ok", "its owner only")
    commands = [f"chmod {'go' if path.is_dir() else 'o'}-rwx {path}" for path in paths]
    modes = ", ".join(f"{path.name} has mode {path.stat().st_mode & 0o777:04o}" for path in paths)
    return DoctorFinding("state access", "warn", f"other users can read the state: {modes}", " && ".join(commands))


def _fault(check: str, error: CumulantError, state: Literal["warn", "fail"] = "fail") -> DoctorFinding:
    text = error.message
    if isinstance(error, ProjectFileError) and error.problems:
        text = "; ".join(
            f"{file}:{line} {problem}" if line else f"{file} {problem}" for file, line, problem in error.problems
        )
    return DoctorFinding(check, state, text, error.hint or "")


def _show(console: Console, findings: list[DoctorFinding]) -> None:
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
    wide = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = marks[finding.state]
        console.print(
            Text.assemble((mark, style), " ", finding.check.ljust(wide), "  ", clean(finding.detail)), soft_wrap=True
        )
        if finding.fix:
            console.print(Text.assemble(" " * (wide + 4), ("→ ", "dim"), clean(finding.fix)), soft_wrap=True)

"""Versions in the desired state: prepared once from the registry, then served from the desired state alone."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.flows.serving.servable_copies import copy_with_version
from cumulant.flows.serving.serve import (
    PreparedService,
    renew_service,
    server_command,
    service_of,
)
from cumulant.flows.stack.desired_state import (
    LOOPBACK,
    DesiredState,
    ServedVersion,
    change_desired_state,
)
from cumulant.ports.deploy import STATE_TABLE, ServedSpec
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: below what systems give to connections that go out, so that no such connection takes a server's port in its absence
_FIRST, _COUNT = 20_000, 10_000
#: where the servable stands in a server's command
_FOLDER = 3


def spec_of(service: PreparedService) -> ServedSpec:
    """What every machine can serve the version by."""
    return ServedSpec(
        version=str(service.model.version),
        servable=service.model.tags.get("cumulant.servable", ""),
        arguments={} if service.table is None else {STATE_TABLE: service.table},
    )


def add_to_machine(project: Project, spec: ServedSpec, host: str = LOOPBACK) -> ServedVersion:
    """Add a version to what this machine can serve, with its servable copied here; its server listens on `host`.

    Raises:
        NotFoundError: neither the objects nor the registry have its servable.
        StorageError, IntegrityError: as `change_desired_state`.
    """
    return put_on_machine(project, service_by_spec(project, spec), host)


def service_by_spec(project: Project, spec: ServedSpec) -> PreparedService:
    """A version with its servable on this machine, by the present settings. Its stored features are there already."""
    uri, tags = f"{project.name}/{spec.version}", {"cumulant.servable": spec.servable} if spec.servable else {}
    version = ModelVersion(
        name=project.name, version=spec.version, uri=uri, run_id=None, created=datetime.now(UTC), tags=tags
    )
    service = service_of(project, version, copy_with_version(project, version))
    table = spec.arguments.get(STATE_TABLE)
    return service if table is None else with_table(project, service, table)


def with_table(project: Project, service: PreparedService, table: str) -> PreparedService:
    return msgspec.structs.replace(service, online=project.endpoints.online, table=table)


def put_on_machine(project: Project, service: PreparedService, host: str) -> ServedVersion:
    line, spec = server_line(service), spec_of(service)
    version = spec.version

    def put(desired: DesiredState) -> DesiredState:
        before = desired.versions.get(version)
        if before is not None:
            served = msgspec.structs.replace(before, command=line, spec=spec)
        else:
            port = free_port(f"{project.state}", desired.ports, host)
            served = ServedVersion(version=version, spec=spec, command=line, port=port, host=host)
        return msgspec.structs.replace(desired, versions={**desired.versions, version: served})

    return change_desired_state(project.state, project.name, put).versions[version]


def with_newest_features(
    project: Project,
    served: ServedVersion,
    *,
    principal: Principal,
    report: Callable[[str], None],
    progress: Progress = silent,
) -> ServedVersion:
    """A version that was served before, with stored features of the newest data.

    Where they cannot be had, because the data are refused or a store is not there, it keeps those that it has, and that
    is reported; so it does where `online` is another store now, which has not what was posted.
    """
    if table_of(served.command) is None:
        return served
    prefix = f"version {served.version}: its stored features stay as they were: "
    if online_of(served.command) != project.endpoints.online:
        report(f"{prefix}`online` names another store now")
        return served
    version, folder = known_version(project, served), Path(folder_of(served.command))
    try:
        service = renew_service(project, version, folder, principal=principal, progress=progress)
    except (CumulantError, MemoryError) as error:
        report(prefix + (error.message if isinstance(error, CumulantError) else "they take more memory than there is"))
        return served
    return msgspec.structs.replace(served, command=server_line(service), spec=spec_of(service))


def catch_up(project: Project, served: ServedVersion) -> None:
    """Add the events that other servers received to a version's stored features; its own server reads them at once.

    Raises:
        EngineUnavailableError, StorageError: the online store cannot be reached or written.
    """
    from cumulant.servable.folder import load_description

    described, table = load_description(Path(folder_of(served.command))), table_of(served.command)
    if isinstance(described, Servable) and table is not None:
        from cumulant.features.online.hashed_keys import HashedKeys
        from cumulant.features.online.online import OnlineFeatures

        OnlineFeatures(HashedKeys.of(described.plan, project.salt).plan, project.online(), table).catch_up()


def known_version(project: Project, served: ServedVersion) -> ModelVersion:
    """A version of the desired state as the registry has it, without a request to the registry."""
    uri = f"{project.name}/{served.version}"
    return ModelVersion(name=project.name, version=served.version, uri=uri, run_id=None, created=datetime.now(UTC))


def server_line(service: PreparedService) -> tuple[str, ...]:
    """The command of a server behind the gateway, by the present settings and interpreter, without its address."""
    # One port of gRPC cannot be two versions', and the gateway does not speak it.
    settings = msgspec.structs.replace(service.settings, grpc=None, hosts=[])  # names are given when it starts
    line = server_command(msgspec.structs.replace(service, settings=settings), http="", given={"behind_gateway": True})
    return tuple(without_option(line, "--http"))


def is_refused(version: ModelVersion) -> bool:
    return version.tags.get("cumulant.verdict") == "refused"


def servable_of(project: Project, served: ServedVersion) -> Path | None:
    """The folder of a version's servable on this machine, copied here where other machines serve it."""
    if served.command:
        folder = Path(folder_of(served.command))
        return folder if folder.is_dir() else None
    return None if served.spec is None else Path(service_by_spec(project, served.spec).folder)


def folder_of(line: Sequence[str]) -> str:
    """The servable that a server's command reads."""
    return line[_FOLDER]


def table_of(line: Sequence[str]) -> str | None:
    """The online table that it reads; None where it needs none."""
    return _value(line, "--state-table")


def online_of(line: Sequence[str]) -> str | None:
    return _value(line, "--online")


def _value(line: Sequence[str], option: str) -> str | None:
    return line[line.index(option) + 1] if option in line else None


def stored_table(served: ServedVersion) -> str | None:
    """The online table with a version's stored features; None where it needs none."""
    return table_of(served.command) or (None if served.spec is None else served.spec.arguments.get(STATE_TABLE))


def references_of(desired: DesiredState) -> tuple[set[str], set[str]]:
    """Folders of this machine and online tables that its versions need."""
    versions = desired.versions.values()
    folders = {folder_of(served.command) for served in versions if served.command}
    return folders, {table for table in map(stored_table, versions) if table}


def free_port(seed: str, taken: Collection[int], host: str = LOOPBACK) -> int:
    """A free port of `host` that is not `taken`; the same for the same project, if free.

    Raises:
        EngineUnavailableError: no port is free, or the machine does not have the address.
    """
    if not is_free(host, 0):
        raise EngineUnavailableError(
            f"{host} is no address of this machine, so that no server can listen there",
            subject=host,
            hint="`cumulant down`, then `cumulant up` with an address that it has",
        )
    begin = zlib.crc32(seed.encode())
    for step in range(_COUNT):
        port = _FIRST + (begin + step) % _COUNT
        if port not in taken and is_free(host, port):
            return port
    raise EngineUnavailableError(f"no port from {_FIRST} to {_FIRST + _COUNT - 1} is free", hint="end what listens")


def is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True


def without_option(line: Sequence[str], option: str) -> list[str]:
    at = line.index(option)
    return [*line[:at], *line[at + 2 :]]

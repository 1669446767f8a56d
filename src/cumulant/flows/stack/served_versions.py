"""Versions in the desired state: prepared once from the registry, then served from the desired state alone."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, NotFoundError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.flows.serving.serve import PreparedService, prepare_service, renew_service, server_command
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state, read_desired_state
from cumulant.ports.registry import ModelVersion

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: below what systems give to connections that go out, so that no such connection takes a server's port in its absence
_FIRST, _COUNT = 20_000, 10_000
#: where the servable stands in a server's command
_FOLDER = 3


def adopt(project: Project, uri: str, *, principal: Principal, progress: Progress = silent) -> ServedVersion:
    """Add a version of the registry to the desired state, ready to be named champion or candidate, unless it is there.

    Its stored features are brought up to date; versions of one plan and one set of snapshots share a state.

    Raises:
        NotFoundError: no such model.
        StorageError, IntegrityError: as `change_desired_state`.
    """
    service = prepare_service(project, uri, principal=principal, progress=progress)
    line = server_line(service)
    version = str(service.model.version)

    def put(desired: DesiredState) -> DesiredState:
        before = desired.versions.get(version)
        if before is not None:
            served = msgspec.structs.replace(before, command=line)
        else:
            served = ServedVersion(version=version, command=line, port=free_port(f"{project.state}", desired.ports))
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
    return msgspec.structs.replace(served, command=server_line(service))


def reads_older_data(project: Project, version: str, *, principal: Principal, progress: Progress = silent) -> bool:
    """Whether a version of the desired state is served with stored features of older data than there are."""
    served = read_desired_state(project.state, project.name).versions[version]
    newer = with_newest_features(project, served, principal=principal, report=silent, progress=progress)
    return table_of(newer.command) != table_of(served.command)


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


def first_champion(project: Project, uri: str, *, principal: Principal, progress: Progress = silent) -> DesiredState:
    """The desired state with a champion: its own, else the version `uri`, by default the registry's champion.

    Raises:
        NotFoundError: the registry has no such version.
        UsageError: what was served here has another name than the project.
    """
    desired = read_desired_state(project.state, project.name)
    if desired.model != project.name:
        raise UsageError(
            f"{desired.model} was served here, and this project is called {project.name}",
            subject=project.name,
            hint=f"without a name in the project file it is the folder's: write model: {{name: {desired.model}}} there",
        )
    if desired.champion is not None:
        return desired
    version = adopt(project, uri or champion_uri(project), principal=principal, progress=progress).version

    def name(desired: DesiredState) -> DesiredState:
        return desired if desired.champion is not None else msgspec.structs.replace(desired, champion=version)

    return change_desired_state(project.state, project.name, name)


def champion_uri(project: Project) -> str:
    """The version with the alias `champion`; where none has it, the newest that the gate did not refuse.

    Raises:
        NotFoundError: the registry has no version that the gate passed.
    """
    registry = project.registry()
    try:
        registry.resolve(f"{project.name}@champion")
    except NotFoundError:
        newest = registry.resolve(project.name)
        known = registry.versions(project.name)
        passed = next((version for version in known if not is_refused(version)), None)
        if passed is None:
            raise NotFoundError(
                f"the gate refused every version of {project.name}",
                subject=project.name,
                hint=f"name one to serve it all the same: {project.name}/{newest.version}",
            ) from None
        return f"{project.name}/{passed.version}"
    return f"{project.name}@champion"


def is_refused(version: ModelVersion) -> bool:
    return version.tags.get("cumulant.verdict") == "refused"


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


def find_references(state: Path, model: str) -> tuple[set[str], set[str]]:
    """Folders and online tables that versions of the desired state need, though no server may run now."""
    lines = [version.command for version in read_desired_state(state, model).versions.values()]
    return {folder_of(line) for line in lines}, {table for line in lines if (table := table_of(line))}


def free_port(seed: str, taken: Collection[int]) -> int:
    """A free port on loopback that is not `taken`; the same for the same project, if free.

    Raises:
        EngineUnavailableError: no port is free.
    """
    begin = zlib.crc32(seed.encode())
    for step in range(_COUNT):
        port = _FIRST + (begin + step) % _COUNT
        if port not in taken and is_free("127.0.0.1", port):
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

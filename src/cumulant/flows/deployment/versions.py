"""Versions in the desired state: taken from the registry once, then served from the desired state alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, EngineUnavailableError, NotFoundError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.flows.deployment.deployment import deployment_of, is_shared
from cumulant.flows.serving.serve import prepare_service
from cumulant.flows.stack.desired_state import LOOPBACK, DesiredState, ServedVersion, read_desired_state
from cumulant.flows.stack.served_versions import (
    is_refused,
    put_on_machine,
    references_of,
    spec_of,
    stored_table,
    table_of,
    with_newest_features,
)

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: for servers with other stored features on all machines
_RENEWED_SECONDS, _CHECK_SECONDS = 120.0, 0.2


def adopt(project: Project, uri: str, *, principal: Principal, progress: Progress = silent) -> ServedVersion:
    """Add a version of the registry to the desired state, ready to be named champion or candidate, unless it is there.

    Its stored features are brought up to date; versions of one plan and one set of snapshots share a state.

    Raises:
        NotFoundError: no such model.
        StorageError, IntegrityError: as `change_desired_state`.
    """
    service = prepare_service(project, uri, principal=principal, progress=progress)
    if is_shared(project):
        deployment, spec = deployment_of(project), spec_of(service)
        deployment.ensure(project.name, [spec])
        return deployment.read(project.name).versions[spec.version]
    return put_on_machine(project, service, LOOPBACK)


def reads_older_data(project: Project, version: str, *, principal: Principal, progress: Progress = silent) -> bool:
    """Whether a version of the desired state is served with stored features of older data than there are."""
    served = deployment_of(project).read(project.name).versions[version]
    if is_shared(project):
        uri = f"{project.name}/{version}"
        return prepare_service(project, uri, principal=principal, progress=progress).table != stored_table(served)
    newer = with_newest_features(project, served, principal=principal, report=silent, progress=progress)
    return table_of(newer.command) != table_of(served.command)


def first_champion(project: Project, uri: str, *, principal: Principal, progress: Progress = silent) -> DesiredState:
    """The desired state with a champion: its own, else the version `uri`, by default the registry's champion.

    Raises:
        NotFoundError: the registry has no such version.
        UsageError: what was served here has another name than the project.
    """
    deployment = deployment_of(project)
    desired = deployment.read(project.name)
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

    return deployment.change(project.name, name)


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


def renew_everywhere(
    project: Project,
    version: str = "",
    *,
    principal: Principal,
    report: Callable[[str], None],
    progress: Progress = silent,
    within: float = _RENEWED_SECONDS,
) -> None:
    """Let every machine serve a version, by default the champion, with stored features of the newest data.

    Raises:
        EngineUnavailableError: a machine does not do so in time; it still serves with those that it has.
        CumulantError: the journal does not answer.
    """
    deployment = deployment_of(project)
    desired = deployment.read(project.name)
    served = desired.versions.get(version or desired.champion or "")
    if served is None or stored_table(served) is None:
        return
    try:
        newer = adopt(project, f"{project.name}/{served.version}", principal=principal, progress=progress)
    except (CumulantError, MemoryError) as error:
        reason = error.message if isinstance(error, CumulantError) else "they take more memory than there is"
        report(f"version {served.version}: its stored features stay as they were: {reason}")
        return
    if stored_table(newer) == stored_table(served) or newer.spec is None:
        return
    _await_arguments(project, newer.version, newer.spec.arguments, within, progress)
    report(f"version {served.version} reads stored features of the newest data from now on")


def _await_arguments(
    project: Project, version: str, arguments: dict[str, str], seconds: float, progress: Progress
) -> None:
    deadline = time.monotonic() + seconds
    deployment = deployment_of(project)
    while True:
        present = [server for server in deployment.present(project.name) if server.version == version]
        late = [server.host for server in present if server.arguments != arguments or not server.ready]
        if not late:
            return
        if time.monotonic() > deadline:
            raise EngineUnavailableError(
                f"version {version} has no server with the newest stored features on {', '.join(sorted(set(late)))}",
                subject=version,
                hint="`cumulant ps` shows what it waits for",
            )
        progress(f"waiting for version {version} on {', '.join(sorted(set(late)))}")
        time.sleep(_CHECK_SECONDS)


def find_references(project: Project) -> tuple[set[str], set[str]]:
    """Folders and online tables that versions of the desired state need, though no server may run now.

    Raises:
        CumulantError: the desired state cannot be read.
    """
    folders, tables = references_of(read_desired_state(project.state, project.name))
    _, shared = references_of(deployment_of(project).read(project.name))
    return folders, tables | shared

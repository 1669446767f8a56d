"""The claim of a copied, moved or restored state folder: it gets its own paths, ports and routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.progress import silent
from cumulant.core.traffic import CHAMPION
from cumulant.flows.deployment.deployment import is_shared
from cumulant.flows.stack.desired_state import (
    FOLDER,
    DesiredState,
    ServedVersion,
    change_desired_state,
    read_desired_state,
)
from cumulant.flows.stack.identity import (
    Identity,
    find_original,
    home_of,
    is_same_folder,
    new_identity,
    read_identity,
    write_identity,
)
from cumulant.flows.stack.lock import end_left_behind, find_supervisor
from cumulant.flows.stack.served_versions import free_port, is_free

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: above every revision that a release of the original may still have been about to set
_BEYOND = 1000
#: files of the original's running processes, in the stack's and the gateway's folder
_NOTES = (f"{FOLDER}/controller.json", f"{FOLDER}/pace.json", "gateway/address.json")


def claim_folder(project: Project, report: Callable[[str], None] = silent) -> None:
    """Make the state belong to this project folder on this machine, before anything is started from it.

    In a copy the servers' commands name the original's log, online store and ports: they get paths below this folder,
    and ports of their own. All requests go to the champion, so that a release that was under way in the original ends
    here. Does nothing where the state is this folder's already, or a supervisor runs in it.

    Raises:
        IntegrityError: the desired state is damaged.
        StorageError: the state folder cannot be written.
        UsageError: it is a copy that shares the original's gateway.
    """
    state, root = project.state, project.root
    before, here = read_identity(state), home_of(state)
    if find_supervisor(state) is not None:
        return
    if before is not None and before.home.is_folder(here) and before.home.host == here.host:
        return
    if before is not None:
        if before.home.is_folder(here) and is_same_folder(Path(before.root), root):
            report(f"this state was last used on {before.home.host}; it belongs to {here.host} from now on")
        elif is_shared(project):
            _start_anew(project, report)
        else:
            _take_over(project, before, report)
    write_identity(state, new_identity(state, root))


def _roots_before(project: Project, before: Identity) -> tuple[str, ...]:
    """The project folder that the commands of the desired state name, with its links resolved too."""
    within, state = project.state.relative_to(project.root).parts, Path(before.home.folder)
    real = [str(state.parents[len(within) - 1])] if state.parts[-len(within) :] == within else []
    return (before.root, *real)


def _start_anew(project: Project, report: Callable[[str], None]) -> None:
    """Where machines share the desired state, what this one has of it is copied again."""
    end_left_behind(project.state)
    for name in (*_NOTES, f"{FOLDER}/desired_state.json", f"{FOLDER}/deployment.json"):
        (project.state / name).unlink(missing_ok=True)
    report("this state is a copy, or was moved: servables are copied to it again")


def _take_over(project: Project, before: Identity, report: Callable[[str], None]) -> None:
    state, root = project.state, project.root
    old, original = _roots_before(project, before), find_original(before, state)
    _check_own_gateway(project, original)
    end_left_behind(state)  # only the files: no process in them was started from this folder
    for name in _NOTES:
        (state / name).unlink(missing_ok=True)

    def port(served: ServedVersion, taken: Collection[int]) -> int:
        keeps = original is None and is_free("127.0.0.1", served.port)
        return served.port if keeps else free_port(str(state), taken)

    ports = {version.version: version.port for version in read_desired_state(state, project.name).versions.values()}
    if ports:
        desired = change_desired_state(
            state, project.name, lambda desired: rebase_versions(desired, old, str(root), port)
        )
        if any(ports.get(version.version) != version.port for version in desired.versions.values()):
            _all_to_champion(project, desired)
    source = f"a copy of {original}" if original is not None else f"moved or restored, last used in {old[0]}"
    report(f"this state is {source}: from now on it is {root}'s own, and nothing of the original is touched")


def _check_own_gateway(project: Project, original: Path | None) -> None:
    """Nothing of a copy may change the routes of the original: its requests would go to the copy's ports."""
    if original is None or not read_desired_state(project.state, project.name).versions:
        return
    url = urlsplit(project.endpoints.traffic)
    if not url.netloc and Path(url.path).resolve().is_relative_to(project.root.resolve()):
        return
    raise UsageError(
        f"this state is a copy of {original}, and both name one gateway",
        subject=project.endpoints.traffic,
        hint=f"give the copy its own environments.{project.environment}.traffic, or move the project instead of "
        "copying it",
    )


def rebase_versions(
    desired: DesiredState, old: tuple[str, ...], new: str, port: Callable[[ServedVersion, Collection[int]], int]
) -> DesiredState:
    """The desired state with paths below `new` where they were below `old`, and a port for each version.

    Where a port changes, the candidate is removed: its release is the original's.
    """
    versions: dict[str, ServedVersion] = {}
    taken = {version.port for version in desired.versions.values()}
    for name, version in desired.versions.items():
        command = tuple(rebase_path(word, old, new) for word in version.command)
        if not Path(command[0]).exists():  # the interpreter may stay where it is
            command = (version.command[0], *command[1:])
        versions[name] = msgspec.structs.replace(version, command=command, port=port(version, taken))
        taken.add(versions[name].port)
    ports_unchanged = all(versions[name].port == version.port for name, version in desired.versions.items())
    candidate = desired.candidate if ports_unchanged else None
    return msgspec.structs.replace(desired, versions=versions, candidate=candidate, starting=(), retiring=())


def rebase_path(word: str, old: tuple[str, ...], new: str) -> str:
    """An argument with the path that it begins with, or that follows `://` or `=` in it, below another folder."""
    for root in old:
        # What lies below `new` already, where that is a folder of the old one, stays.
        below = f"(?!{re.escape(new[len(root) :])}(?:/|$))" if new.startswith(f"{root}/") else ""
        moved = re.sub(rf"(^|://|=){re.escape(root)}(?=/|$){below}", lambda match: match[1] + new, word)
        if moved != word:
            return moved
    return word


def _all_to_champion(project: Project, desired: DesiredState) -> None:
    traffic = project.gateway()
    routes = traffic.in_force(project.name)
    if routes is None or desired.champion not in desired.versions:
        return
    arm = desired.arm(str(desired.champion), CHAMPION)
    traffic.apply(routes.all_to(arm, revision=routes.revision + _BEYOND))

"""A step as another process can call it, and what that process must know of the run that it belongs to."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.ports.access import Principal
from cumulant.ports.compute import RESOURCES, Resources
from cumulant.ports.driver import Need
from cumulant.ports.plugins import scheme_of

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: the capability of a compute driver whose steps do not see the caller's process
ISOLATED = "isolated"
#: the capability of a driver that processes of several machines can use; of a compute driver, that it runs steps there
HOSTS = "hosts"
#: the function that each step of a command calls where it runs in a process of its own
RUN_STEP = "cumulant.flows.ledger.step_process:run_step"


class StepFunction(msgspec.Struct, frozen=True):
    """`function` is `module:name`, called with the run's context and the arguments by name, which are JSON."""

    function: str
    arguments: dict[str, object]


class RunReference(msgspec.Struct, frozen=True, kw_only=True):
    """An open run, for another process. `settings` is the digest of the project file as the run has read it.

    `cause` is the id of the run's first event. `salt` is the fingerprint of the run's salt; None where it has none yet.
    `stored_overrides` is the key of the object with the overrides, where the journal holds the reference.
    """

    root: str
    environment: str
    overrides: dict[str, object]
    settings: str
    run: str
    cause: str | None
    principal: Principal
    begun: datetime
    salt: str | None = None
    stored_overrides: str = ""


def driver_needs(project: Project) -> list[Need]:
    """What steps in processes of their own need of the stores that they use at the same time."""
    if ISOLATED not in project.drivers.capabilities(project.endpoints.compute, "compute"):
        return []
    reason = f"steps run in processes of their own with compute: {scheme_of(project.endpoints.compute)}://"
    return [Need(port, "processes", reason) for port in ("journal", "tables", "objects")]


def settings_digest(project: Project) -> str:
    """What the project file, the environment and the overrides say together."""
    return digest([msgspec.to_builtins(project.file.spec), msgspec.to_builtins(project.file.environment)])


def is_isolated(project: Project) -> bool:
    """Whether the environment's compute driver runs steps in a process of their own.

    A copy of a journal that cannot be written is seen by its own process only.
    """
    return not project.reads_aside and ISOLATED in project.drivers.capabilities(project.endpoints.compute, "compute")


def runs_elsewhere(project: Project) -> bool:
    """Whether the environment's compute driver may run steps on other machines."""
    return HOSTS in project.drivers.capabilities(project.endpoints.compute, "compute")


def needed_resources(project: Project, step: str) -> Resources:
    """What a step needs of the machine that runs it; nothing where that is always this one."""
    if RESOURCES not in project.drivers.capabilities(project.endpoints.compute, "compute"):
        return Resources()
    return project.policies.step_resources(step)


def can_reach(project: Project, port: str, url: str | None = None) -> bool:
    """Whether a process that runs steps reaches what this one reaches at `port`: it is on this machine too, or what is
    there is not. `url`: of that client alone.
    """
    if not runs_elsewhere(project):
        return True
    return supports_hosts(project, port, url)


def supports_hosts(project: Project, port: str, url: str | None = None) -> bool:
    """Whether processes of several machines can use what is at `port`."""
    return HOSTS in project.drivers.capabilities(url or project.endpoints.of(port), port)

"""The projects of a list that a principal may see: the same decision as for each one alone."""

from __future__ import annotations

from collections.abc import Iterable

from cumulant.flows.ledger.actions import permits
from cumulant.ports.access import Principal
from cumulant.project.project import Project


def allowed(
    principal: Principal, action: str, projects: Iterable[Project], *, model: str | None = None
) -> list[Project]:
    """The projects in which `check` would allow `action`, in their order. A project that is left out is no event:
    nobody asked for it.

    Raises:
        TerminalError: the action is not declared.
    """
    return [project for project in projects if permits(project, principal, action, model=model)]

"""Queries of releases, under way or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import not_found
from cumulant.flows.ledger.actions import verb
from cumulant.flows.release import store
from cumulant.release.look_history import LookHistory
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


@verb("release.show", of="model")
def current_release(project: Project, *, principal: Principal, model: str = "") -> Release:
    """The newest release, under way or over.

    Raises:
        NotFoundError: there was none.
    """
    return store.read_required(project.journal(), model or project.name)[0]


@verb("release.show", of="model")
def find_release(project: Project, identity: str, *, principal: Principal, model: str = "") -> Release:
    """A release by its id; the newest where the id is empty.

    Raises:
        NotFoundError: no such release.
    """
    releases = release_history(project, principal=principal, model=model)
    if not identity:
        return current_release(project, principal=principal, model=model)
    for release in releases:
        if release.id == identity:
            return release
    raise not_found("release", identity, [release.id for release in releases])


@verb("release.show", of="model")
def release_history(project: Project, *, principal: Principal, model: str = "") -> list[Release]:
    return store.list_releases(project.journal(), model or project.name)


@verb("release.show", of="model")
def release_looks(project: Project, identity: str, *, principal: Principal, model: str = "") -> LookHistory | None:
    """The recorded looks of a release; None where there are none."""
    return store.read_looks(project.journal(), model or project.name, identity)


def waiting_candidate(project: Project) -> str | None:
    """The candidate that waits until the release is over, as `NAME/VERSION`."""
    row = project.journal().get(store.WAITING, project.name)
    return None if row is None else str(row.value["uri"])

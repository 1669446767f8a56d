"""Queries of releases, under way or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.core.errors import not_found
from cumulant.flows.ledger.actions import verb
from cumulant.flows.release import store
from cumulant.release.look_history import LookHistory
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.flows.ledger.row_cache import RowCache
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
    journal, name = project.journal(), model or project.name
    if not identity:
        return store.read_required(journal, name)[0]
    release = store.read_one(journal, name, identity)
    if release is None:
        raise not_found("release", identity, [known.id for known in store.list_releases(journal, name)])
    return release


@verb("release.show", of="model")
def release_page(
    project: Project,
    *,
    principal: Principal,
    model: str = "",
    before: str = "",
    limit: int = 50,
    cache: RowCache[Release] | None = None,
) -> list[Release]:
    """At most `limit` releases that began before the one with the id `before`, the newest first; ended ones without
    their evidence.

    `cache`: what a server remembers of ended releases.
    """
    name = model or project.name
    return store.newest_releases(project.journal(), name, before=before or None, limit=limit, cache=cache)


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

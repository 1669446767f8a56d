"""Releases that ended and lost their place to a newer one before people were told: they are told of all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.events import Actor
from cumulant.release.state import Release
from cumulant.runtime.release import store
from cumulant.runtime.release.beside import Beside

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.project import Project


def untold(journal: Journal, models: Collection[str]) -> list[Release]:
    """Releases of these models that a newer one took the place of, and of which nobody was told yet."""
    rows = (journal.get(store.PAST, row.key) for row in journal.rows(store.UNTOLD))
    found = (msgspec.convert(row.value, Release) for row in rows if row is not None)
    return [release for release in found if release.model in models]


def tell(journal: Journal, release: Release, told: Callable[[Release], bool], actor: Actor) -> None:
    """Tell people of it, and note that they were told."""
    if not told(release):
        return
    with journal.transaction(actor=actor, run=release.id) as transaction:
        store.settled_late(transaction, release, "told")


class Replaced:
    """Tells beside the rounds.

    Args:
        told: tells the receivers of a release; whether that is done.
    """

    def __init__(
        self, project: Project, told: Callable[[Release], bool], report: Callable[[str], None], actor: Actor
    ) -> None:
        self._project, self._told, self._actor = project, told, actor
        self._beside = Beside("people are not told of a release yet", report, project.vault.redact)

    def tick(self, models: Collection[str]) -> threading.Thread | None:
        """Begin to tell of one release of these models, if there is one; the thread that does it.

        Raises:
            CumulantError: the journal cannot be reached.
        """
        journal = self._project.journal()
        if self._beside.busy or not (found := untold(journal, models)):
            return None
        return self._beside.begin(lambda: tell(journal, found[0], self._told, self._actor))

"""Servables as a server's settings want them opened: from its folders only, with its store and its fallback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.serving.fallback import Fallback
from cumulant.serving.models import Model, open_model
from cumulant.serving.repository import Repository
from cumulant.serving.settings import Settings
from cumulant.serving.stores import open_store

if TYPE_CHECKING:
    from cumulant.ports.online import OnlineStore


class Opening:
    """Opens models until it is closed.

    Raises:
        UsageError, MissingPartError: as `open_store`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: OnlineStore | None = open_store(settings.online) if settings.online else None
        self.repository = Repository(settings.folders)

    def __call__(self, folder: Path) -> Model:
        """Load and warm the servable in `folder`.

        Raises:
            NotFoundError, IntegrityError, UsageError, EngineUnavailableError: as `Repository.check` and `open_model`.
        """
        kept = self._settings.kept
        if kept is None or folder.parent != Path(kept):
            self.repository.check(folder)
        model, declared = self._load(folder), self._settings.fallback
        if declared.given:
            cheap = None if declared.servable is None else self._load(Path(declared.servable))
            model.fallback = Fallback(model, declared, cheap)
        return model

    def _load(self, folder: Path) -> Model:
        settings = self._settings
        return open_model(folder, store=self._store, table=settings.table, scheduling=settings.scheduling)

    def close(self) -> None:
        """Let the store go."""
        if self._store is not None:
            self._store.close()

"""Opening of models by a server's settings, with its stores and fallback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.servable.folder import load_description
from cumulant.serving.content_pins import check
from cumulant.serving.freed_memory import release_memory
from cumulant.serving.models.control import open_pinned
from cumulant.serving.models.fallback import Fallback
from cumulant.serving.models.model import Model, open_model
from cumulant.serving.models.repository import Repository
from cumulant.serving.models.stores import open_store
from cumulant.serving.prediction_log.salt import salt_fits, wrong_salt
from cumulant.serving.sequences.sequence_store import SequenceBounds, SequenceStore
from cumulant.serving.settings import Settings

if TYPE_CHECKING:
    from cumulant.ports.online import OnlineStore
    from cumulant.serving.workers.cache_client import SharedCacheClient


class ModelOpener:
    """Opens models until it is closed; `untried` ones as `Engine` does.

    Raises:
        UsageError, MissingPartError: as `open_store`.
    """

    def __init__(
        self, settings: Settings, shared_cache: SharedCacheClient | None = None, *, untried: bool = False
    ) -> None:
        self._settings, self._untried = settings, untried
        self._shared_cache = shared_cache
        self._store: OnlineStore | None = None
        if settings.online:
            self._store = open_store(settings.online, scope=settings.scope, secrets=settings.secrets)
        self._sequences = _sequences(settings)
        self.repository = Repository(settings.folders)

    def __call__(self, folder: Path) -> Model:
        """Load and warm the servable in `folder`.

        Raises:
            NotFoundError, IntegrityError, UsageError, EngineUnavailableError: as `Repository.check` and `open_model`.
        """
        artifacts = self._settings.artifacts
        copied = artifacts is not None and folder.parent == Path(artifacts)
        described = load_description(folder, verify=False) if copied else self.repository.check(folder)
        if not salt_fits(described, self._settings.salt_fingerprint):
            raise wrong_salt(described)
        model, declared = self._load(folder), self._settings.fallback
        if (
            declared.is_declared and not model.stateful
        ):  # an answer without a run would leave a step out of its sequence
            model.fallback = Fallback(model, declared, self._cheap())
        if self._shared_cache is not None and not model.stateful:  # its answers depend on more than the request
            self._shared_cache.join(model, folder)
        release_memory()
        return model

    def _cheap(self) -> Model | None:
        """The fallback's servable, of the content that is pinned."""
        declared, pinned = self._settings.fallback.servable, self._settings.fallback_pin
        if declared is None or pinned is None:
            return None if declared is None else self._load(Path(declared))
        check(pinned, "it is the fallback: start the server again to take what the folder holds now")
        return open_pinned(pinned, self._load)

    def _load(self, folder: Path) -> Model:
        settings = self._settings
        return open_model(
            folder,
            store=self._store,
            table=settings.table,
            salt=settings.salt,
            scheduling=settings.scheduling,
            sequences=self._sequences,
            refuse_invalid=settings.invalid == "refuse",
            untried=self._untried,
        )

    def close(self) -> None:
        """Close the stores."""
        if self._store is not None:
            self._store.close()
        if self._sequences is not None:
            self._sequences.close()


def _sequences(settings: Settings) -> SequenceStore | None:
    if settings.sequences is None:
        return None
    return SequenceStore(Path(settings.sequences), SequenceBounds(settings.sequence_count, settings.sequence_bytes))

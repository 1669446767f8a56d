"""Connection of a worker's models to the shared cache."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.ids import file_digest
from cumulant.core.prometheus import Series
from cumulant.core.servable import GraphServable, Servable
from cumulant.servable.engine import engine_version
from cumulant.serving.cache.shared_answers import SharedAnswers
from cumulant.serving.cache.shared_cache import SharedCacheTier
from cumulant.serving.models.model import Model
from cumulant.serving.models.stores import open_cache, redacted_url
from cumulant.serving.settings import Settings
from cumulant.serving.telemetry.metrics import histogram_series


class SharedCacheClient:
    """Shared cache of `settings`, for all models of this process.

    Raises:
        UsageError: nothing is declared, or as `open_cache`.
        MissingPartError: as `open_cache`.
    """

    def __init__(self, settings: Settings) -> None:
        sharing = settings.sharing
        if sharing is None:
            raise UsageError("no shared cache is declared")
        self._caching = settings.scheduling.caching
        store = open_cache(sharing.url, sharing.password)
        self.tier = SharedCacheTier(store, sharing.budget, name=f"the shared cache {redacted_url(sharing.url)}")

    def join(self, model: Model, folder: Path) -> None:
        """Connect `model`, which was loaded from `folder`, to the shared cache."""
        runner = model.runner
        runner.shared = SharedAnswers(
            self.tier,
            servable_identity(model.servable, folder, runner.outputs),
            runner.specs(),
            ttl=self._caching.ttl,
            always=self._caching.mode == "on",
            on_hit=runner.cache.put_shared,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.tier.start()
        try:
            yield
        finally:
            await self.tier.close()

    def series(self) -> list[Series]:
        return [
            histogram_series("cumulant_shared_cache_seconds", (), self.tier.seconds),
            Series("cumulant_shared_cache_open_workers", ("read",), float(not self.tier.reads.closed)),
            Series("cumulant_shared_cache_open_workers", ("write",), float(not self.tier.writes.closed)),
        ]


def servable_identity(servable: Servable | GraphServable, folder: Path, outputs: list[str]) -> dict[str, object]:
    """Everything besides the inputs that determines the engine's outputs; equal where two servers share answers."""
    plan = servable.plan if isinstance(servable, Servable) else None
    return {
        "model": servable.name,
        "version": servable.version,
        "files": servable.files or {servable.model: file_digest(folder / servable.model)},
        "features": msgspec.to_builtins(plan),
        "outputs": outputs,
        # Another release may round the last bit otherwise, as may another order of bytes.
        "engine": engine_version(),
        "byteorder": sys.byteorder,
    }

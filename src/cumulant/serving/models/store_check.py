"""Whether the online store behind a network answers: tried beside readiness checks, which report it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.serving.models.row_model import RowModel

if TYPE_CHECKING:
    from cumulant.serving.models.model import Model

#: seconds between two attempts
_PAUSE = 1.0


class StoreCheck:
    """`unreachable` is what the last attempt showed. An attempt begins with a readiness check, which it does not delay.

    It is true also without requests: these say the same with their errors.
    """

    def __init__(self, *, steady: Callable[[], float] = time.monotonic) -> None:
        self.unreachable = False
        self._steady = steady
        self._next = -_PAUSE
        self._attempt: asyncio.Task[None] | None = None

    def renew(self, models: Iterable[Model]) -> None:
        """Begin an attempt, on the running event loop, where a model awaits its store and none was a moment ago."""
        if self._attempt is not None and not self._attempt.done():
            return
        awaiting = next((model for model in models if isinstance(model, RowModel) and model.features.awaits), None)
        if awaiting is None:
            self.unreachable = False
        elif self._steady() >= self._next:
            self._next = self._steady() + _PAUSE
            self._attempt = asyncio.get_running_loop().create_task(self._try(awaiting))

    async def _try(self, model: RowModel) -> None:
        try:
            await model.features.reach()
            self.unreachable = False
        except EngineUnavailableError:
            self.unreachable = True
        except CumulantError:  # it answers, though not with what requests need, which their errors say
            self.unreachable = False

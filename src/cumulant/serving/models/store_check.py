"""Whether the online store behind a network answers: tried beside readiness checks, which report it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, EngineUnavailableError
from cumulant.serving.models.row_model import RowModel

if TYPE_CHECKING:
    from cumulant.serving.models.model import Model

#: seconds between two attempts
_PAUSE = 1.0
#: seconds for which the result of an attempt is reported: checks of load balancers are up to half as far apart
_VALID = 60.0


class StoreCheck:
    """Attempts to reach the store. An attempt begins with a readiness check, which it does not delay.

    So a check reports what the attempt of the one before it showed. Errors of requests show the same.
    """

    def __init__(self, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._next = self._unreachable_until = -math.inf
        self._attempt: asyncio.Task[None] | None = None

    @property
    def unreachable(self) -> bool:
        """Whether the last attempt failed, at most a minute ago."""
        return self._steady() < self._unreachable_until

    def renew(self, models: Iterable[Model]) -> None:
        """Begin an attempt, on the running event loop, where a model awaits its store and none was a moment ago."""
        if self._attempt is not None and not self._attempt.done():
            return
        awaiting = next((model for model in models if isinstance(model, RowModel) and model.features.awaits), None)
        if awaiting is None:
            self._unreachable_until = -math.inf
        elif self._steady() >= self._next:
            self._next = self._steady() + _PAUSE
            self._attempt = asyncio.get_running_loop().create_task(self._try(awaiting))

    async def _try(self, model: RowModel) -> None:
        try:
            await model.features.reach()
            self._unreachable_until = -math.inf
        except EngineUnavailableError:
            self._unreachable_until = self._steady() + _VALID
        except CumulantError:  # it answers, though not with what requests need, which their errors show
            self._unreachable_until = -math.inf

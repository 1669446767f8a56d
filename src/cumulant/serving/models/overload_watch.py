"""Whether models refused requests a short while ago, since more came than can be answered in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulant.serving.models.model import Model

#: seconds for which a refusal is reported: checks of load balancers are up to half as far apart
_REPORTED = 60.0


class OverloadWatch:
    """Compares the number of refused requests at readiness checks, which report whether it grew."""

    def __init__(self, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._until = -math.inf
        self._refused: dict[tuple[str, str], int] = {}

    def read(self, models: Iterable[Model], by_head: int = 0) -> bool:
        """Whether requests were refused since a check that was at most a minute ago. `by_head`: how many were so far,
        by their connections, before a model had them.
        """
        now = self._steady()
        refused = {(model.name, model.version): model.runner.refused for model in models} | {("", ""): by_head}
        if any(count > self._refused.get(key, 0) for key, count in refused.items()):
            self._until = now + _REPORTED
        self._refused = refused
        return now < self._until

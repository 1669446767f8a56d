"""Progress of a simulation, with the remaining time, estimated from the releases that ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from cumulant.core.progress import Progress
from cumulant.flows.reports.wording import duration, plural

#: seconds left from which an estimate is a step of its own, which plain output shows too
_LONG = 10.0


class SimulationProgress:
    """Reports to `progress` how many of `releases` ended, `at_once` of which run at a time, and the time left."""

    def __init__(
        self, progress: Progress, releases: int, *, at_once: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress
        self._releases = releases
        self._at_once = at_once
        self._clock = clock
        self._begun = clock()
        self._announced = False
        progress(f"simulate {plural(releases, 'release')}, {at_once} at a time")

    def ended(self, count: int) -> None:
        """So many releases have ended."""
        remaining, text = self.left(count), f"{count} of {plural(self._releases, 'release')}"
        if remaining is not None and remaining >= _LONG:
            if not self._announced:
                self._announced = True
                self._progress(f"{plural(self._releases - count, 'more release')}, about {duration(remaining)}")
            text += f", about {duration(remaining)} left"
        self._progress(text, count / self._releases)

    def left(self, count: int) -> float | None:
        """Seconds until all have ended, as long as the mean so far; None until each process may have ended one."""
        if count < self._at_once:
            return None
        return (self._clock() - self._begun) / count * (self._releases - count)

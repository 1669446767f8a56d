"""The schedule of a world: stages, hours of the day, times since a step began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cumulant.flows.release.simulation.random_series import Floats
from cumulant.flows.release.simulation.world import Outage, ReleaseWorld
from cumulant.flows.release.simulation.world_loading import first_step
from cumulant.release.steps import ReleaseStep

_HOUR = 3600.0
DAY = 86_400.0


@dataclass(frozen=True)
class LookInterval:
    """One look: when it begins (seconds since the release began), how long it is, and in which step.

    `within`: seconds since the step began; `answering`: since the candidate began to answer callers, None before.
    """

    at: float
    seconds: float
    step: ReleaseStep
    place: int
    within: float
    answering: float | None


class WorldSchedule:
    """A world's times, for the steps of one release that begins `begins` seconds after midnight."""

    def __init__(self, world: ReleaseWorld, steps: Sequence[ReleaseStep], begins: float) -> None:
        self._world, self._begins = world, begins
        self._errors_from = _place(steps, world.errors.from_stage)
        self._split_from = _place(steps, world.split.from_stage)
        self._outages = {outage: first_step(steps, outage.stage) for outage in world.outages}

    def factor(self, at: float) -> float:
        """What the requests a second are multiplied by."""
        profile = self._world.traffic.profile
        return 1.0 if profile is None else profile[int((self._begins + at) // _HOUR % 24)]

    def day(self, at: float) -> int:
        """The number of the day; 0 is the one in which the release begins."""
        return int((self._begins + at) // DAY)

    def candidate_errors(self, moment: LookInterval) -> float:
        errors = self._world.errors
        if errors.candidate is None or moment.place < self._errors_from:
            return errors.champion
        return errors.candidate

    def lost_share(self, moment: LookInterval) -> float:
        return self._world.split.lost_share if moment.place >= self._split_from else 0.0

    def cold(self, moment: LookInterval, came: Floats) -> npt.NDArray[np.bool_]:
        if self._world.cold_start is None or moment.answering is None:
            return np.zeros(len(came), dtype=np.bool_)
        return np.asarray(moment.answering + came < self._world.cold_start.seconds)

    def out(self, outage: Outage, moment: LookInterval, came: Floats) -> npt.NDArray[np.bool_]:
        if moment.place != self._outages[outage]:
            return np.zeros(len(came), dtype=np.bool_)
        return np.asarray(moment.within + came < outage.seconds)


def _place(steps: Sequence[ReleaseStep], stage: str | None) -> int:
    return 0 if stage is None else first_step(steps, stage)

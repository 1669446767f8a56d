"""A project's own log as the requests of both arms: block bootstraps of the champion's requests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cumulant.core.errors import UsageError
from cumulant.core.traffic import CHAMPION, Exchange
from cumulant.flows.release.simulation.random_series import Floats
from cumulant.flows.release.simulation.requests import ArrivedRequests
from cumulant.flows.release.simulation.schedule import LookInterval, WorldSchedule
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.look import Requests, counting

#: seconds of a block, and blocks that the log must have
BLOCK, FEWEST = 300.0, 4
#: requests that are read, the newest ones
MOST = 1_000_000
_MICROS = 1_000_000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LoggedRequests:
    """What the champion answered, in order of time: seconds since the first one [n], and the columns of a look."""

    seconds: Floats
    requests: Requests

    @property
    def span(self) -> float:
        return float(self.seconds[-1]) if len(self.seconds) else 0.0


def read_logged_requests(exchanges: Iterable[Exchange], model: str) -> LoggedRequests:
    """The champion's requests of a gateway's log.

    Raises:
        UsageError: there are too few for a bootstrap.
    """
    answered = [exchange for exchange in counting(exchanges, model=model) if exchange.assigned == CHAMPION]
    answered = sorted(answered, key=lambda exchange: exchange.time)[-MOST:]
    times = np.array([exchange.time for exchange in answered], dtype=np.float64)
    log = LoggedRequests((times - times[0]) / _MICROS if len(times) else times, Requests.of(answered))
    if log.span < FEWEST * BLOCK:
        raise UsageError(
            f"the gateway's log holds {log.span:.0f} s of requests of the champion of {model}, and a simulation from it"
            f" needs {FEWEST * BLOCK:.0f} s",
            subject="--log",
            hint="let `cumulant up` serve for a while; or describe the traffic with --world FILE.json",
        )
    return log


class LoggedCallers:
    """The requests of a release, drawn from a log. The world adds what the candidate does worse."""

    def __init__(
        self, log: LoggedRequests, world: ReleaseWorld, scene: WorldSchedule, rng: np.random.Generator
    ) -> None:
        self._log, self._world, self._scene, self._rng = log, world, scene, rng
        keys = np.unique(log.requests.key)
        self._keys, self._place = keys, rng.random(len(keys))
        self._starts: list[Floats] = [np.zeros(0), np.zeros(0)]

    def look(self, moment: LookInterval) -> ArrivedRequests:
        parts = [self._of_arm(moment, arm) for arm in (False, True)]
        rows = np.concatenate([of_arm for of_arm, _ in parts])
        came = np.concatenate([seconds for _, seconds in parts])
        candidate = np.repeat([False, True], [len(of_arm) for of_arm, _ in parts])
        log, latency = self._log.requests, self._world.latency.ratio
        harm = self._rng.random(len(rows)) < self._added(moment)
        requests = Requests(
            candidate=candidate,
            failed=log.failed[rows] | (candidate & harm),
            timed_out=log.timed_out[rows],
            micros=log.micros[rows] * np.where(candidate, latency, 1.0),
            key=log.key[rows],
        )
        return ArrivedRequests(requests, came)

    def candidate_rate(self, moment: LookInterval) -> float:
        return float(min(1.0, self._log.requests.failed.mean() + self._added(moment)))

    def history(self, *, look: float, quantile: float) -> ChampionHistory:
        """The log in looks of `look` seconds."""
        log = self._log.requests
        slow_us = float(np.quantile(log.micros, quantile))
        return ChampionHistory.of((self._log.seconds // look).astype(np.int64), log, slow_us)

    def _added(self, moment: LookInterval) -> float:
        return max(0.0, self._scene.candidate_errors(moment) - self._world.errors.champion)

    def _of_arm(self, moment: LookInterval, candidate: bool) -> tuple[Ints, Floats]:
        place, offset = divmod(moment.at, self._block(moment.seconds))
        begin = self._start(int(place), int(candidate)) + offset
        low, high = np.searchsorted(self._log.seconds, [begin, begin + moment.seconds])
        rows = np.arange(low, high)
        keys = self._log.requests.key[rows]
        hashed = self._place[np.searchsorted(self._keys, keys)]
        hashed = np.where(keys == 0, self._rng.random(len(rows)), hashed)
        mine = (hashed < moment.step.weight / 100) == candidate
        return rows[mine], self._log.seconds[rows[mine]] - begin

    def _block(self, look: float) -> float:
        return max(1, math.floor(BLOCK / look)) * look

    def _start(self, place: int, arm: int) -> float:
        while len(self._starts[arm]) <= place:
            more = self._rng.uniform(0, max(0.0, self._log.span - BLOCK), 64)
            self._starts[arm] = np.concatenate([self._starts[arm], more])
        return float(self._starts[arm][place])

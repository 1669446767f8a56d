"""Simulated requests of callers, look by look: keys, assigned arm, failures, latencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from cumulant.flows.release.simulation.random_series import Factors, Floats, Levels
from cumulant.flows.release.simulation.schedule import DAY, LookInterval, WorldSchedule
from cumulant.flows.release.simulation.world import ReleaseWorld, WorldKeys
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.look import Requests

#: seconds of the champion's history that a release begins with
BEFORE = DAY

#: part of `sigma` that is the level of an arm, where levels are autocorrelated
LEVEL = 0.2

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ArrivedRequests:
    """One look's requests that reached the log, and when each came: seconds since the look began [n]."""

    requests: Requests
    seconds: Floats


class SimulatedKeys:
    """All keys of a world: activity, place on the circle of hashes, own failure rate and latency. Heavy ones first."""

    def __init__(self, keys: WorldKeys, rng: np.random.Generator) -> None:
        heavy = np.array([key.share for key in keys.heavy])
        ranks = np.arange(1, keys.count + 1, dtype=np.float64) ** -keys.zipf
        light = ranks / ranks.sum() * (1 - heavy.sum())
        self.activity = np.concatenate([heavy, light])
        self._upto = np.cumsum(self.activity)
        self.place = rng.random(len(self.activity))
        self.hash = rng.integers(1, 2**64, len(self.activity), dtype=np.uint64)
        self.heavy = len(heavy)
        #: of heavy keys: their own failure rate, else NaN; and their latency's ratio
        self.errors = np.array([math.nan if key.errors is None else key.errors for key in keys.heavy])
        self.ratio = np.array([key.latency_ratio for key in keys.heavy])

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        places = np.searchsorted(self._upto, rng.random(count) * self._upto[-1], side="right")
        return np.asarray(np.minimum(places, len(self.place) - 1), dtype=np.int64)


class SimulatedCallers:
    """The requests of a release, in order of its looks."""

    def __init__(self, world: ReleaseWorld, scene: WorldSchedule, rng: np.random.Generator) -> None:
        self._world, self._scene, self._rng = world, scene, rng
        streams = rng.spawn(5)
        self.keys = SimulatedKeys(world.keys, streams[0]) if world.keys is not None else None
        bursts = world.bursts
        cv, seconds = (bursts.cv, bursts.seconds) if bursts is not None else (0.0, 60.0)
        self.factors = [Factors(stream, cv=cv, seconds=seconds, before=BEFORE) for stream in streams[1:3]]
        if bursts is not None and bursts.of == "shared":
            self.factors[1] = self.factors[0]
        sigma, keep = world.latency.sigma, world.latency.ar1
        self.levels = [Levels(stream, keep=keep, deviation=LEVEL * sigma) for stream in streams[3:5]]
        self._noise = sigma * math.sqrt(1 - LEVEL**2) if keep else sigma

    def history(self, *, look: float, quantile: float) -> ChampionHistory:
        """The champion's last day before the release. Call it once, before the first look."""
        return champion_history(
            self._world,
            self._scene,
            factors=self.factors[0],
            levels=self.levels[0],
            noise=self._noise,
            look=look,
            quantile=quantile,
            rng=self._rng,
        )

    def look(self, moment: LookInterval) -> ArrivedRequests:
        rng, seconds = self._rng, moment.seconds
        expected = self._world.traffic.requests_per_second * seconds * self._scene.factor(moment.at)
        count = int(rng.poisson(expected))
        came = rng.random(count) * seconds
        number = self.keys.draw(rng, count) if self.keys is not None else None
        place = self.keys.place[number] if self.keys is not None else rng.random(count)
        candidate = place < moment.step.weight / 100
        requests = Requests(
            candidate=candidate,
            failed=rng.random(count) < self._failing(moment, came, candidate, number),
            timed_out=np.zeros(count, dtype=np.bool_),
            micros=self._micros(moment, came, candidate, number),
            key=self.keys.hash[number] if self.keys is not None else np.zeros(count, dtype=np.uint64),
        )
        return self._logged(moment, ArrivedRequests(requests, came))

    def candidate_rate(self, moment: LookInterval) -> float:
        """Share of mirrored requests that the candidate fails in a look, at its middle."""
        middle = np.array([moment.seconds / 2])
        return float(self._failing(moment, middle, np.array([True]), None)[0])

    def _failing(
        self, moment: LookInterval, came: Floats, candidate: npt.NDArray[np.bool_], number: Ints | None
    ) -> Floats:
        scene, errors = self._scene, self._world.errors
        rate = np.where(candidate, scene.candidate_errors(moment), errors.champion)
        cold = scene.cold(moment, came) & candidate
        if self._world.cold_start is not None and self._world.cold_start.errors is not None:
            rate = np.where(cold, self._world.cold_start.errors, rate)
        if self.keys is not None and number is not None and self.keys.heavy:
            own = np.append(self.keys.errors, math.nan)[np.minimum(number, self.keys.heavy)]
            rate = np.where(np.isnan(own), rate, own)
        times = moment.at + came
        rate = rate * np.where(candidate, self.factors[1].at(times), self.factors[0].at(times))
        for name, mine in (("champion", ~candidate), ("candidate", candidate)):
            for outage in self._world.outages:
                if outage.arm == name:
                    rate = np.where(mine & scene.out(outage, moment, came), outage.rate, rate)
        return np.minimum(rate, 1.0)

    def _micros(
        self, moment: LookInterval, came: Floats, candidate: npt.NDArray[np.bool_], number: Ints | None
    ) -> Floats:
        latency, cold = self._world.latency, self._world.cold_start
        level = [float(series.next(1)[0]) for series in self.levels]
        log = math.log(latency.median_ms * 1000) + self._noise * self._rng.normal(size=len(came))
        log += np.where(candidate, level[1] + math.log(latency.ratio), level[0])
        if cold is not None:
            log += np.where(self._scene.cold(moment, came) & candidate, math.log(cold.latency_ratio), 0.0)
        if self.keys is not None and number is not None and self.keys.heavy:
            log += np.append(np.log(self.keys.ratio), 0.0)[np.minimum(number, self.keys.heavy)]
        return np.asarray(np.exp(log), dtype=np.float64)

    def _logged(self, moment: LookInterval, arrived: ArrivedRequests) -> ArrivedRequests:
        lost = self._scene.lost_share(moment)
        if not lost:
            return arrived
        requests = arrived.requests
        logged = ~requests.candidate | (self._rng.random(len(requests)) >= lost)
        return ArrivedRequests(requests.take(logged), arrived.seconds[logged])


def champion_history(
    world: ReleaseWorld,
    scene: WorldSchedule,
    *,
    factors: Factors,
    levels: Levels,
    noise: float,
    look: float,
    quantile: float,
    rng: np.random.Generator,
) -> ChampionHistory:
    """The champion's last day in looks of `look` seconds; the series of its bursts and levels continue in the release.

    `noise`: standard deviation of the log latency within a look.
    """
    looks = max(1, int(BEFORE // look))
    edges = np.asarray((np.arange(looks + 1) - looks) * look, dtype=np.float64)
    traffic = world.traffic.requests_per_second * look
    requests = rng.poisson(traffic * np.array([scene.factor(float(at)) for at in edges[:-1]]))
    failing = rng.binomial(requests, np.minimum(1.0, _champion_errors(world) * factors.means(edges)))
    slow_us, slow = _slow(world, requests, levels.next(looks), noise=noise, quantile=quantile)
    bad = np.stack([failing, np.zeros(looks), rng.binomial(requests, slow)], axis=1).astype(np.float64)
    some = requests > 0
    return ChampionHistory(requests=requests[some].astype(np.float64), bad=bad[some], slow_us=slow_us)


def _champion_errors(world: ReleaseWorld) -> float:
    base = world.errors.champion
    heavy = world.keys.heavy if world.keys is not None else []
    return base + sum(key.share * (key.errors - base) for key in heavy if key.errors is not None)


def _slow(
    world: ReleaseWorld, requests: npt.NDArray[np.int64], levels: Floats, *, noise: float, quantile: float
) -> tuple[float | None, Floats]:
    """The champion's quantile of all looks, in microseconds, and each look's chance of a request above it."""
    heavy = world.keys.heavy if world.keys is not None else []
    shares = np.array([1 - sum(key.share for key in heavy), *(key.share for key in heavy)])
    ratios = np.log([1.0, *(key.latency_ratio for key in heavy)])
    middle = math.log(world.latency.median_ms * 1000)

    def above(bound: float) -> Floats:
        place = (bound - middle - levels[:, None] - ratios) / max(noise, 1e-9)
        return np.asarray(stats.norm.sf(place) @ shares)

    whole = requests.sum()
    if not whole:
        return None, np.zeros(len(requests))
    reach = 12 * noise + float(np.abs(levels).max() + np.abs(ratios).max()) + 1e-6
    bound = optimize.brentq(
        lambda micros: float(above(micros) @ requests / whole) - (1 - quantile), middle - reach, middle + reach
    )
    return math.exp(bound), above(float(bound))

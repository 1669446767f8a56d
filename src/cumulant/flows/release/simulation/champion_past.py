"""The champion's history before a simulated release.

It is counts a look, not single requests: a day of requests is many millions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from cumulant.flows.release.simulation.random_series import Factors, Floats, Levels
from cumulant.flows.release.simulation.schedule import DAY, WorldSchedule
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.release.evidence.champion_history import ChampionHistory

#: seconds of the champion's history that a release begins with
BEFORE = DAY


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
    """The champion's last day in looks of `look` seconds; the series of its bursts and levels go on in the release.

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
    """The mean rate over keys."""
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

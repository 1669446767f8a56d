"""The duration of a release: simulated looks and requests until a given harm, or its absence, is detected."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, check_alpha
from cumulant.statistics.sequential.simulated import (
    decide_often,
    harm_test,
    look_of_most,
    not_worse_test,
    simulate_counts,
)
from cumulant.statistics.sequential.symmetric import growth

#: rates of the champion at which the null of `not_worse_seconds` is searched
_NULLS = 50


@dataclass(frozen=True, kw_only=True)
class ArmTraffic:
    """Requests of each arm in one look, and how long a look is in seconds."""

    champion: float
    candidate: float
    seconds: float

    def __post_init__(self) -> None:
        if not min(self.champion, self.candidate, self.seconds) > 0:
            raise ValueError("traffic needs requests of both arms in a look and a look longer than 0 s")


def harm_is_seen(
    traffic: ArmTraffic,
    *,
    rate: float,
    ratio: float,
    alpha: float = 0.05,
    looks: int = 180,
    wanted: float = 0.8,
    releases: int = 400,
    seed: int = 0,
) -> bool:
    """Whether at least `wanted` of the simulated releases roll back a candidate with `ratio` x the champion's `rate`.

    `rate`: the champion's bad events a request; a `ratio` of 1 gives false alarms.

    Raises:
        ValueError: a rate is not between 0 and 1, or wanted or alpha is not.
    """
    counts = simulate_counts(_means(traffic), (rate, rate * ratio), shape=(looks, releases), seed=seed)
    return decide_often(counts, harm_test(alpha), check_alpha(wanted))


def not_worse_looks(
    traffic: ArmTraffic,
    *,
    rate: float,
    margin: float,
    ratio: float = 1.0,
    alpha: float = 0.05,
    looks: int = 180,
    wanted: float = 0.8,
    releases: int = 400,
    seed: int = 0,
) -> int | None:
    """About the looks until `wanted` of the simulated releases show a candidate to be within `margin`; None: too many.

    `ratio` x the champion's `rate` is the candidate's; `margin` is in bad events a request.

    Raises:
        ValueError: a rate is not between 0 and 1, or wanted, alpha or the margin is not above 0.
    """
    counts = simulate_counts(_means(traffic), (rate, rate * ratio), shape=(looks, releases), seed=seed)
    return look_of_most(counts, not_worse_test(alpha, margin), check_alpha(wanted))


def harm_seconds(traffic: ArmTraffic, *, rate: float, ratio: float, alpha: float = 0.05) -> float:
    """About how long the harm test needs where no arm has bursts: until its expected evidence proves `ratio` x `rate`.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    n, m = _means(traffic)
    common = rate * (n + m * ratio) / (n + m)
    grows = float(n * _divergence(rate, common) + m * _divergence(rate * ratio, common))
    return traffic.seconds * math.log(1 / check_alpha(alpha)) / grows if grows > 0 else math.inf


def not_worse_seconds(
    traffic: ArmTraffic, *, rate: float, margin: float, ratio: float = 1.0, alpha: float = 0.05
) -> float:
    """The same of the test that a candidate with `ratio` x `rate` is within `margin` (bad events a request).

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    n, m = _means(traffic)
    null = np.linspace(max(rate * ratio - margin, 0.0), rate, _NULLS + 1)[1:]  # of the champion, the likeliest is there
    grows = float((n * _divergence(rate, null) + m * _divergence(rate * ratio, null + margin)).min())
    return traffic.seconds * math.log(1 / check_alpha(alpha)) / grows if grows > 0 else math.inf


def paired_blocks(*, margin: float, deviation: float, pairs: float, drift: float = 0.0, alpha: float = 0.05) -> float:
    """About how many blocks `symmetric.PairedBlocks` needs to show non-inferiority when there is no difference.

    `deviation` and `drift` are standard deviations in the unit of the loss and `margin`: of a pair's difference, and of
    what all `pairs` of a block share (a day's weather).

    Raises:
        ValueError: margin, deviation or pairs is not above 0, the drift is below 0, or alpha is not between 0 and 1.
    """
    if not (margin > 0 and deviation > 0 and pairs > 0 and drift >= 0):
        raise ValueError(f"blocks need a margin, deviation and pairs above 0, not {margin}, {deviation}, {pairs}")
    grows = growth(margin / math.hypot(deviation / math.sqrt(pairs), drift))
    needed = math.log(len(grows) / check_alpha(alpha))
    return _steps_until(grows, needed) if grows.max() > 0 else math.inf


def _steps_until(grows: Floats, needed: float) -> float:
    """How many steps until the sum of all capitals, each growing by its own of `grows` a step, is e^`needed`."""
    low, high = 0.0, needed / float(grows.max())  # below it is too little, at it enough: a sum is convex
    while low < (middle := (low + high) / 2) < high:
        if float(np.logaddexp.reduce(middle * grows)) < needed:
            low = middle
        else:
            high = middle
    return high


def _divergence(true: float, other: npt.ArrayLike) -> Floats:
    """Expected log likelihood ratio a request of Poisson events at the rate `true` against each other one."""
    # scipy.special has it as kl_div, which takes longer to import than a plan takes to compute.
    rates = np.asarray(other, dtype=np.float64)
    if not true:
        return rates
    with np.errstate(divide="ignore"):  # against a rate of 0 it is infinite
        divergence: Floats = true * np.log(true / rates) + rates - true
    return divergence


def _means(traffic: ArmTraffic) -> tuple[float, float]:
    return traffic.champion, traffic.candidate

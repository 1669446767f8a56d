"""The duration of a release: simulated looks and requests until a given harm, or its absence, is detected."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cumulant.statistics.sequential.arrays import Floats, check_alpha
from cumulant.statistics.sequential.simulated import (
    decide_often,
    first_looks,
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


@dataclass(frozen=True, kw_only=True)
class Power:
    """The looks at which simulated releases decided.

    Attributes:
        decided: share of releases that did within the looks simulated.
        median_looks, looks: within which 50% and `wanted` of all releases did; None where fewer did.
        candidate_requests, seconds: the same for `wanted`, at the given traffic; None where fewer did.
        wanted: the power required.
    """

    decided: float
    median_looks: int | None
    looks: int | None
    candidate_requests: float | None
    seconds: float | None
    wanted: float


def harm_power(
    traffic: ArmTraffic,
    *,
    rate: float,
    ratio: float,
    alpha: float = 0.05,
    looks: int = 180,
    wanted: float = 0.8,
    burst: float = 0.0,
    margin: float = 1.0,
    releases: int = 400,
    seed: int = 0,
) -> Power:
    """Looks until a candidate with `ratio` x the champion's `rate` of bad events is rolled back.

    `rate`: the champion's bad events a request; a `ratio` of 1 gives false alarms. `burst`: coefficient of variation of
    each arm's own rate from look to look. `margin`: ratio up to which the candidate is not called worse.

    Raises:
        ValueError: a rate is not between 0 and 1, or wanted or alpha is not.
    """
    counts = simulate_counts(_means(traffic), (rate, rate * ratio), burst=burst, shape=(looks, releases), seed=seed)
    return _power(first_looks(counts, harm_test(alpha, margin)), traffic, looks, wanted)


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
    """Whether `harm_power` of the same arguments decides in at least `wanted` of the releases; it is known sooner."""
    counts = simulate_counts(_means(traffic), (rate, rate * ratio), shape=(looks, releases), seed=seed)
    return decide_often(counts, harm_test(alpha), check_alpha(wanted))


def not_worse_power(
    traffic: ArmTraffic,
    *,
    rate: float,
    margin: float,
    ratio: float = 1.0,
    alpha: float = 0.05,
    looks: int = 180,
    wanted: float = 0.8,
    burst: float = 0.0,
    releases: int = 400,
    seed: int = 0,
) -> Power:
    """Looks until a candidate with `ratio` x the champion's rate is shown to be within `margin` (bad events a request).

    The other arguments are those of `harm_power`.

    Raises:
        ValueError: a rate is not between 0 and 1, or wanted, alpha or the margin is not above 0.
    """
    counts = simulate_counts(_means(traffic), (rate, rate * ratio), burst=burst, shape=(looks, releases), seed=seed)
    return _power(first_looks(counts, not_worse_test(alpha, margin)), traffic, looks, wanted)


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
    """About the `looks` of `not_worse_power` of the same arguments, in much less time."""
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
    rates = np.asarray(other, dtype=np.float64)
    divergence: Floats = true * np.log(true / rates) + rates - true
    return divergence


def _means(traffic: ArmTraffic) -> tuple[float, float]:
    return traffic.champion, traffic.candidate


def _power(first: Floats, traffic: ArmTraffic, looks: int, wanted: float) -> Power:
    check_alpha(wanted)
    median, most = (float(np.quantile(first, q, method="inverted_cdf")) for q in (0.5, wanted))
    look_count = int(most) if most <= looks else None
    return Power(
        decided=float(np.isfinite(first).mean()),
        median_looks=int(median) if median <= looks else None,
        looks=look_count,
        candidate_requests=None if look_count is None else look_count * traffic.candidate,
        seconds=None if look_count is None else look_count * traffic.seconds,
        wanted=wanted,
    )

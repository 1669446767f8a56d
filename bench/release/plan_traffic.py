"""How far `release plan` is off where its log covers little or traffic changes: `python bench/release/plan_traffic.py`.

Each world has a past, which the plan reads, and a future, in which the requests that it counts with come. Printed: how
long the promotion is said to take, and how long it takes until so many requests have come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cumulant.flows.release.plan.measured_traffic import estimate_traffic
from cumulant.flows.release.plan.release_plan import build_plan
from cumulant.project.release_section import release_policy
from cumulant.release.spec import CanarySpec, ReleaseSpec, StagesSpec

Floats = npt.NDArray[np.float64]
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
#: a world's future, in days, and the moment at which its plan is made
FUTURE = 90
NOW = 0.0
POLICY = release_policy(
    ReleaseSpec(
        stages=StagesSpec(
            shadow=None, ab=None, canary=CanarySpec(weights=["10%", "50%"], at_least="1m", soak="1m", at_most="30d")
        )
    )
)


class World(NamedTuple):
    """Requests a second at moments in seconds, of which those since `since` are logged."""

    name: str
    rate: Callable[[Floats], Floats]
    since: float = -7 * DAY


def by_hour(inside: float, outside: float, begin: float, end: float) -> Callable[[Floats], Floats]:
    """One rate between two hours of each day, another for the rest."""

    def rate(at: Floats) -> Floats:
        hour = at % DAY / HOUR
        return np.where((begin <= hour) & (hour < end), inside, outside)

    return rate


def by_weekday(busy: float, quiet: float, today: int) -> Callable[[Floats], Floats]:
    """Saturday and Sunday (5 and 6) are quiet; `today` is the weekday at the moment of the plan."""
    return lambda at: np.where((at // DAY + today) % 7 >= 5, quiet, busy)


def changing(now: float, doubling: float, least: float, most: float) -> Callable[[Floats], Floats]:
    """Traffic that doubles in so many days (negative: halves)."""
    return lambda at: np.clip(now * 2 ** (at / DAY / doubling), least, most)


def idle(until: float, begin: float, end: float, rate: float) -> Callable[[Floats], Floats]:
    """Traffic between `begin` and `end`, none until `until`, and the same traffic after it."""
    return lambda at: np.where(((begin <= at) & (at < end)) | (at >= until), rate, 0.0)


WORLDS = (
    World("steady, a week", lambda at: np.full_like(at, 0.05)),
    World("steady, 3 hours old", lambda at: np.full_like(at, 0.05), since=-3 * HOUR),
    World("burst of a minute, fresh, then .05/s", lambda at: np.where(at < NOW, 60.0, 0.05), since=-MINUTE),
    World(
        "burst of a minute 5 hours ago, then .05/s",
        lambda at: np.where(at < -5 * HOUR + MINUTE, 60.0, np.where(at < NOW, 0.0, 0.05)),
        since=-5 * HOUR,
    ),
    World("3 busy hours of a first day", by_hour(0.1, 0.005, 12, 24), since=-3 * HOUR),
    World("an hour each night, a week", by_hour(1.2, 0.0, 2, 3)),
    World("an hour each night, since yesterday", by_hour(1.2, 0.0, 2, 3), since=-23 * HOUR),
    World("an hour each night, 30 hours", by_hour(1.2, 0.0, 23, 24), since=-30 * HOUR),
    World("quiet weekends, planned on Saturday 0:00", by_weekday(0.06, 0.005, 5)),
    World("quiet weekends, planned on Monday 0:00", by_weekday(0.06, 0.005, 0)),
    World("quiet weekends, 4 days old, Saturday 0:00", by_weekday(0.06, 0.005, 5), since=-4 * DAY),
    World("doubles every 3 days", changing(0.1, 3, 0, 0.4)),
    World("halves every 3 days, then steady", changing(0.05, -3, 0.05, 9)),
    World("halves every 3 days, and on", changing(0.05, -3, 0.01, 9)),
    World("a day, idle for 5 days, comes again now", idle(NOW, -6.5 * DAY, -5.5 * DAY, 0.1)),
    World("a day, idle for 5 days and 5 more", idle(5 * DAY, -6.5 * DAY, -5.5 * DAY, 0.1)),
)


def arrivals(world: World, begin: float, end: float, seed: int) -> Floats:
    """Moments of a Poisson process with the world's rate, constant within minutes."""
    dice = np.random.default_rng(seed)
    minutes = np.arange(begin, end, MINUTE)
    counts = dice.poisson(world.rate(minutes) * MINUTE)
    return np.sort(np.repeat(minutes, counts) + dice.uniform(0, MINUTE, counts.sum()))


def main() -> None:
    print("| world | said, days | needed requests | takes, days | said / takes | requests a day, said |")
    print("|---|---|---|---|---|---|")
    longest = POLICY.steps[0].at_most
    for seed, world in enumerate(WORLDS):
        traffic = estimate_traffic(arrivals(world, world.since, NOW, seed), NOW)
        plan = build_plan(POLICY, rate=traffic, errors=0.005)
        day = "–" if plan.requests_a_day is None else f"{plan.requests_a_day:,.0f}"
        if plan.seconds is None:
            print(f"| {world.name} | not within its longest times | – | – | – | {day} |")
            continue
        needed = round(plan.seconds * traffic.rate_within(longest))
        after = arrivals(world, NOW, FUTURE * DAY, 1000 + seed)
        takes = float(after[needed - 1]) / DAY if needed <= len(after) else float("inf")
        said = plan.seconds / DAY
        print(f"| {world.name} | {said:.3g} | {needed:,} | {takes:.3g} | {said / takes:.2g} | {day} |")


if __name__ == "__main__":
    main()

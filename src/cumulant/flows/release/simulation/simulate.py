"""The simulation of many releases of one world on all cores, with a result independent of their number."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.flows.ledger.actions import verb
from cumulant.flows.release.simulation.log_replay import MOST, LoggedRequests, read_logged_requests
from cumulant.flows.release.simulation.result import SimulatedRelease, SimulationResult, summarize_releases
from cumulant.flows.release.simulation.run import simulate_release
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.flows.release.simulation.world_loading import DEFAULT, policy_of, read_world
from cumulant.flows.reports.wording import duration, plural
from cumulant.flows.traffic.clients import exchanges_of

if TYPE_CHECKING:
    from cumulant.core.traffic import Exchange
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy
    from cumulant.release.spec import ReleaseSpec

#: seconds left from which an estimate is a step of its own, which plain output shows too
_LONG = 10.0

#: releases of one simulation, at most
_MOST = 100_000
#: batches of releases that each process gets
_BATCHES = 10
_PAGE = 100_000


@verb("release.simulate")
def simulate_releases(
    project: Project,
    *,
    principal: Principal,
    world: str | None = None,
    log: bool = False,
    releases: int = 100,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress = silent,
) -> SimulationResult:
    """How releases of this project's policy end in a world: a file, or the name of one that ships with Cumulant.

    With `log` the requests of both arms are drawn from the gateway's log of the champion.

    Raises:
        UsageError: the world, the policy or the number of releases cannot be used, or the log holds too little.
    """
    described = read_world(world or DEFAULT)
    recorded = _read_log(project) if log else None
    return simulate(
        described,
        project.file.spec.release,
        name=world or (f"{project.name}'s log" if log else DEFAULT),
        log=recorded,
        releases=releases,
        seed=seed,
        processes=processes,
        progress=progress,
    )


def simulate(
    world: ReleaseWorld,
    base: ReleaseSpec,
    *,
    name: str = "",
    log: LoggedRequests | None = None,
    releases: int = 100,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress = silent,
) -> SimulationResult:
    """How so many releases end. `base` is the section `release` under the world's own policy.

    Raises:
        UsageError: as `simulate_releases`.
    """
    if not 1 <= releases <= _MOST:
        raise UsageError(
            f"{releases} releases cannot be simulated",
            subject="--releases",
            hint=f"write a number from 1 to {_MOST:,}; 100 give a share to within 10 points",
        )
    policy = policy_of(world, base)
    at_once = min(releases, cores() if processes is None else processes)
    report, ended = SimulationProgress(progress, releases, at_once=at_once), list[SimulatedRelease]()
    for release in _simulate_in_processes(world, policy, log, releases=releases, seed=seed, at_once=at_once):
        ended.append(release)
        report.ended(len(ended))
    return summarize_releases(ended, world=name, expect=world.expect, seed=seed)


def _simulate_in_processes(
    world: ReleaseWorld, policy: ReleasePolicy, log: LoggedRequests | None, *, releases: int, seed: int, at_once: int
) -> Iterator[SimulatedRelease]:
    """Releases as they end; each has a seed of its own, so that their order and place do not matter."""
    seeds = np.random.SeedSequence(seed).spawn(releases)
    if at_once <= 1:
        yield from (simulate_release(world, policy, own, log) for own in seeds)
        return
    size = max(1, releases // (at_once * _BATCHES))
    # One release a process first, by which the time of all is estimated.
    alone = [[own] for own in seeds[:at_once]]
    batches = [*alone, *(seeds[place : place + size] for place in range(at_once, releases, size))]
    # The caller may have threads, which a fork would leave half done.
    with ProcessPoolExecutor(at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(simulate_batch, world, policy, batch, log) for batch in batches]):
            yield from future.result()


def simulate_batch(
    world: ReleaseWorld, policy: ReleasePolicy, seeds: Sequence[np.random.SeedSequence], log: LoggedRequests | None
) -> list[SimulatedRelease]:
    return [simulate_release(world, policy, seed, log) for seed in seeds]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_log(project: Project) -> LoggedRequests:
    exchanges: deque[Exchange] = deque(maxlen=MOST)
    source, after = exchanges_of(project), ""
    while True:
        page, after = source.exchanges(after, limit=_PAGE)
        exchanges.extend(page)
        if len(page) < _PAGE:
            return read_logged_requests(exchanges, project.name)


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

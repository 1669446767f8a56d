"""Many releases of one world, on all cores, with the same result whatever their number."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

import numpy as np

from cumulant.core.errors import UsageError
from cumulant.core.progress import Progress, silent
from cumulant.flows.ledger.actions import check, verb
from cumulant.flows.release.simulation.log_replay import MOST, LoggedRequests, logged
from cumulant.flows.release.simulation.progress import SimulationProgress
from cumulant.flows.release.simulation.result import Ended, Simulated, simulated
from cumulant.flows.release.simulation.run import release_of
from cumulant.flows.release.simulation.world import World
from cumulant.flows.release.simulation.world_loading import DEFAULT, policy_of, read_world

if TYPE_CHECKING:
    from cumulant.core.traffic import Exchange
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy
    from cumulant.release.spec import ReleaseSpec

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
) -> Simulated:
    """How releases of this project's policy end in a world: a file, or the name of one that ships with Cumulant.

    With `log` the requests of both arms are drawn from the gateway's log of the champion.

    Raises:
        UsageError: the world, the policy or the number of releases cannot be used, or the log holds too little.
    """
    check(project.access(), principal, "release.simulate", project.name)
    found = read_world(world or DEFAULT)
    recorded = _recorded(project) if log else None
    return simulate(
        found,
        project.spec.release,
        name=world or (f"{project.name}'s log" if log else DEFAULT),
        log=recorded,
        releases=releases,
        seed=seed,
        processes=processes,
        progress=progress,
    )


def simulate(
    world: World,
    base: ReleaseSpec,
    *,
    name: str = "",
    log: LoggedRequests | None = None,
    releases: int = 100,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress = silent,
) -> Simulated:
    """How so many releases end. `base` is the section `release` under the world's own policy.

    Raises:
        UsageError: as `simulate_releases`.
    """
    if not 1 <= releases <= _MOST:
        raise UsageError(
            f"{releases} releases cannot be simulated",
            subject="--releases",
            hint=f"write a number from 1 to {_MOST:,}; 100 tell a share to within 10 points",
        )
    policy = policy_of(world, base)
    at_once = min(releases, cores() if processes is None else processes)
    report, found = SimulationProgress(progress, releases, at_once=at_once), list[Ended]()
    for one in _ended(world, policy, log, releases=releases, seed=seed, at_once=at_once):
        found.append(one)
        report.ended(len(found))
    return simulated(found, world=name, expect=world.expect, seed=seed)


def _ended(
    world: World, policy: ReleasePolicy, log: LoggedRequests | None, *, releases: int, seed: int, at_once: int
) -> Iterator[Ended]:
    """Releases as they end; each has a seed of its own, so that their order and place do not matter."""
    seeds = np.random.SeedSequence(seed).spawn(releases)
    if at_once <= 1:
        yield from (release_of(world, policy, one, log) for one in seeds)
        return
    size = max(1, releases // (at_once * _BATCHES))
    # One release a process first, by which the time of all is estimated.
    alone = [[one] for one in seeds[:at_once]]
    batches = [*alone, *(seeds[place : place + size] for place in range(at_once, releases, size))]
    # The caller may have threads, which a fork would leave half done.
    with ProcessPoolExecutor(at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(releases_of, world, policy, one, log) for one in batches]):
            yield from future.result()


def releases_of(
    world: World, policy: ReleasePolicy, seeds: Sequence[np.random.SeedSequence], log: LoggedRequests | None
) -> list[Ended]:
    """The releases of one batch."""
    return [release_of(world, policy, one, log) for one in seeds]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _recorded(project: Project) -> LoggedRequests:
    """The newest requests of the gateway's log."""
    found: deque[Exchange] = deque(maxlen=MOST)
    client, after = project.traffic(), ""
    while True:
        page, after = client.exchanges(after, limit=_PAGE)
        found.extend(page)
        if len(page) < _PAGE:
            return logged(found, project.name)

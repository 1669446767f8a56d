"""How soon stylised rules of others and ours find a harm, and how often they roll back a candidate that is no worse.

    python bench/release/peers.py [NAME ...] [--releases 200] [--seed 1] [--json bench/release/peers.json]

Each world is driven for 30 minutes at 10% of the traffic. The rules of others are stylised: a rule at a common setting, on
the counts of the very requests that ours gets. Ours is the shipped path (`simulate`) with `ab` alone, 30 minutes long,
and without a warm-up, which the others do not have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy import special, stats

from cumulant.flows.release.simulation.requests import SimulatedCallers
from cumulant.flows.release.simulation.result import share_of
from cumulant.flows.release.simulation.run import draw_begin
from cumulant.flows.release.simulation.schedule import LookInterval, WorldSchedule
from cumulant.flows.release.simulation.simulate import cores, simulate
from cumulant.flows.release.simulation.world import ReleaseWorld
from cumulant.flows.release.simulation.world_loading import policy_of, read_world
from cumulant.project.release_section import release_policy
from cumulant.release.evidence.metrics import metrics, split_alpha
from cumulant.release.spec import ReleaseSpec
from cumulant.release.steps import ReleaseStep

RESULTS = Path(__file__).parent / "peers.json"
ALPHA, LOOK, LOOKS = 0.05, 10.0, 180
#: ab alone, for half an hour
POLICY = {"warm_up": "0s", "stages": {"shadow": None, "ab": {"at_least": "30m", "at_most": "30m"}}}
WORLDS = (
    "equal-independent",
    "equal-errors-2",
    "equal-keys",
    "equal-bursts-60",
    "equal-bursts-300",
    "equal-bursts-10-cv3",
    "equal-bursts-shared",
    "equal-outage-champion-ab",
    "errors-x1.5",
    "errors-x3",
    "errors-x10",
    "errors-x3-bursts",
    "errors-x3-bursts-shared",
    "errors-x3-keys",
)

Counts = Any


def window(counts: Counts, looks: int = 6) -> Counts:
    upto = np.cumsum(np.pad(counts, (looks, 0)))
    return upto[looks:] - upto[:-looks]


def success_rate(na, ka, nb, kb, *, limit: int = 0, most: float = 0.01) -> int | None:
    """The candidate's failures of a minute, each minute, against a fixed share; `limit` of them are forgiven."""
    bad = (window(kb) > most * window(nb)) & (np.arange(len(kb)) % 6 == 5)
    return first(np.cumsum(bad) > limit)


def mann_whitney(na, ka, nb, kb) -> int | None:
    """One look at the end, at the failure rates of minutes."""
    a, b = ((k.reshape(-1, 6).sum(1) / np.maximum(n.reshape(-1, 6).sum(1), 1)) for n, k in ((na, ka), (nb, kb)))
    p = stats.mannwhitneyu(b, a, alternative="two-sided").pvalue
    return len(na) - 1 if p < 0.02 and b.mean() > a.mean() else None


def peeked_z(na, ka, nb, kb) -> int | None:
    """A z test of two shares, read at every look."""
    na, ka, nb, kb = (np.cumsum(one) for one in (na, ka, nb, kb))
    p = (ka + kb) / (na + nb)
    z = (kb / nb - ka / na) / np.sqrt(np.maximum(p * (1 - p) * (1 / na + 1 / nb), 1e-12))
    return first((z > stats.norm.ppf(1 - ALPHA)) & (kb >= 5))


def plain_mixture(na, ka, nb, kb, *, alpha: float = ALPHA) -> int | None:
    """A mixture e-process that takes failures as independent."""
    ratios = np.exp(np.linspace(np.log(1.2), np.log(10), 25))[:, None]
    share = nb / (nb + na)
    other = ratios * nb / (ratios * nb + na)
    logs = np.cumsum(kb * np.log(other / share) + ka * np.log((1 - other) / (1 - share)), axis=1)
    return first(special.logsumexp(logs, axis=0) - np.log(len(ratios)) >= np.log(1 / alpha))


#: of alpha, what ours gives to errors: the rest is for time-outs, latency, quality and the quick checks
ERRORS_ALPHA = split_alpha(metrics(release_policy(ReleaseSpec())), ALPHA)["errors"]
RULES: dict[str, Callable[..., int | None]] = {
    "success rate >= 99% a minute": success_rate,
    "five failed checks in all": partial(success_rate, limit=4),
    "one-look Mann-Whitney (30 min)": mann_whitney,
    "z test, peeked": peeked_z,
    "plain mixture e-process": plain_mixture,
    "the same, alpha of our errors": partial(plain_mixture, alpha=ERRORS_ALPHA),
}


def first(hit: Counts) -> int | None:
    return int(hit.argmax()) if hit.any() else None


def counted(world: ReleaseWorld, seed: np.random.SeedSequence) -> tuple[Counts, Counts, Counts, Counts]:
    """Requests and failures [looks] of the champion and the candidate in ab."""
    rng = np.random.default_rng(seed)
    every: tuple[ReleaseStep, ...] = policy_of(world, ReleaseSpec()).steps
    streams = rng.spawn(4)
    source = SimulatedCallers(world, WorldSchedule(world, every, draw_begin(world, streams[0])), streams[1])
    source.history(look=LOOK, quantile=0.95)
    found = np.zeros((4, LOOKS))
    for look in range(LOOKS):
        at = LOOK * look
        one = source.look(LookInterval(at=at, seconds=LOOK, step=every[0], place=0, within=at, answering=at)).requests
        b = one.candidate
        found[:, look] = (~b).sum(), (~b & one.failed).sum(), b.sum(), (b & one.failed).sum()
    return tuple(found)


def found_by(world: ReleaseWorld, seeds: list[np.random.SeedSequence]) -> dict[str, list[int | None]]:
    """By rule, the look of each release's rollback."""
    out: dict[str, list[int | None]] = {name: [] for name in RULES}
    for seed in seeds:
        counts = counted(world, seed)
        for name, rule in RULES.items():
            out[name].append(rule(*counts))
    return out


def row(rolled_back: int, whole: int, seconds: list[float]) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(share_of(rolled_back, whole)),
        "median_seconds": float(np.median(seconds)) if seconds else None,
    }


def compared(name: str, releases: int, seed: int) -> dict[str, Any]:
    shipped = read_world(name)
    traffic = msgspec.structs.replace(shipped.traffic, release_hours=LOOK * LOOKS / 3600)
    world = msgspec.structs.replace(shipped, policy=POLICY, traffic=traffic)
    seeds = np.random.SeedSequence(seed).spawn(releases)
    with ProcessPoolExecutor(cores()) as pool:
        parts = list(pool.map(found_by, [world] * cores(), [seeds[place :: cores()] for place in range(cores())]))
    rows = {}
    for rule in RULES:
        looks = [look for part in parts for look in part[rule] if look is not None]
        rows[rule] = row(len(looks), releases, [(look + 1) * LOOK for look in looks])
    ours = simulate(world, ReleaseSpec(), name=name, releases=releases, seed=seed)
    median = ours.seconds_by_end["rolled_back"].median
    return {**rows, "ours": {**msgspec.to_builtins(ours.rolled_back), "median_seconds": median}}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME", default=None)
    options.add_argument("--releases", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--json", type=Path, default=RESULTS)
    asked = options.parse_args()
    results = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    for name in asked.names or WORLDS:
        results[name] = {"releases": asked.releases, "rules": compared(name, asked.releases, asked.seed)}
        asked.json.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
        print(
            name,
            {rule: (one["share"], one["median_seconds"]) for rule, one in results[name]["rules"].items()},
            flush=True,
        )


if __name__ == "__main__":
    main()

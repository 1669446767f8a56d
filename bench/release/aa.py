"""A/A releases by real processes: an equal candidate goes through every stage behind the real gateway, again and again.

Run: `python bench/release/aa.py [--releases 20] [--rate 100] [--kill-gateway]`. One stack (`cumulant up`: gateway, controller, a server
a version) carries them out one after another, champion and candidate in turn, under a steady load of 200 keys. With
`--kill-gateway` it is killed (SIGKILL) again and again. Prints a line a release, then the false rollbacks with their bound.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec
from scipy.stats import beta

from cumulant.core.traffic import Exchange
from cumulant.project.release_section import release_policy
from cumulant.release.spec import AbSpec, CanarySpec, MetricSpec, ShadowSpec, StagesSpec
from cumulant.release.state import Release

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "e2e"))
from e2e_load import Load, Seen
from e2e_stack import Stack, stack, until

STAGES = StagesSpec(
    shadow=ShadowSpec(at_least="2s", at_most="10m", samples=0),
    ab=AbSpec(at_least="2s", at_most="10m", samples=20),
    canary=CanarySpec(at_least="3s", soak="4s", at_most="10m", samples=20),
)
#: wide enough to be shown within seconds; harm is sought with the whole of alpha, in latency too
METRICS = {
    "errors": MetricSpec(margin="5%"),
    "timeouts": MetricSpec(margin="5%"),
    "latency": MetricSpec(required=False),
}
#: seconds of a gateway's life; one that is killed sooner than 5 s after it answered is waited for longer each time
KILLS = 8.0
SPEC = {"alpha": "5%", "look": "500ms", "block": "1s", "stages": STAGES, "metrics": METRICS}


class Ended(NamedTuple):
    """One release: how it ended, and what its callers saw."""

    status: str
    seconds: float
    requests: int
    failed: int
    #: longest time from a failed request to the next answered one, in seconds
    longest: float
    #: keys that two arms answered for within one setting of the weights
    torn: int


def released(running: Stack, load: Load, *, kills: bool) -> Ended:
    """Carry one release out."""
    before, begun = len(load.seen), time.monotonic()
    spec = msgspec.structs.replace(running.project.spec.release, **SPEC)
    release = running.begin(running.equal(), steps=release_policy(spec).steps, **SPEC)
    killed = 0.0
    while not running.release.over:
        if kills and time.monotonic() - killed > KILLS:
            running.kill("gateway")
            killed = time.monotonic()
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    over = running.over()
    assert over.id == release.id
    told = ", ".join(f"{one.label} {one.seconds:.1f} s" for one in over.passed)
    print(f"  {over.status} after {told}: {over.reason}", flush=True)
    seen = load.seen[before:]
    failed = [one for one in seen if one.failed]
    return Ended(over.status, seconds, len(seen), len(failed), _longest(seen), _torn(running.exchanges(), over))


def _longest(seen: list[Seen]) -> float:
    """Seconds from the first failed request of a row to the next that was answered."""
    longest, since = 0.0, None
    for one in sorted(seen, key=lambda one: one.begun):
        if one.failed:
            since = one.begun if since is None else since
        elif since is not None:
            longest, since = max(longest, one.begun - since), None
    return longest


def _torn(exchanges: list[Exchange], over: Release) -> int:
    arms: dict[tuple[int, str], set[str]] = defaultdict(set)
    for one in exchanges:
        if over.revision - len(over.steps) <= one.revision < over.revision:
            arms[one.revision, one.key].add(one.assigned)
    return sum(len(found) > 1 for found in arms.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--kill-gateway", action="store_true")
    asked = parser.parse_args()
    found: list[Ended] = []
    with (
        tempfile.TemporaryDirectory() as place,
        stack(Path(place) / "stack") as running,
        running.load(asked.rate) as load,
    ):
        until(lambda: load.answered() > 0)
        for number in range(asked.releases):
            one = released(running, load, kills=asked.kill_gateway)
            found.append(one)
            print(
                f"{number + 1}: {one.status}, {one.seconds:.1f} s, {one.requests} requests, {one.failed} failed, "
                f"longest {one.longest:.2f} s, {one.torn} keys on two arms",
                flush=True,
            )
    _told(found)


def _told(found: list[Ended]) -> None:
    back = sum(one.status != "promoted" for one in found)
    bound = float(beta.ppf(0.95, back + 1, len(found) - back)) if back < len(found) else 1.0
    print(
        f"{len(found)} releases, {back} not promoted (at most {bound:.1%}, one-sided 95%, Clopper-Pearson), "
        f"{sum(one.failed for one in found)} of {sum(one.requests for one in found)} requests failed, "
        f"longest without an answer {max(one.longest for one in found):.2f} s, "
        f"{sum(one.seconds for one in found) / len(found):.1f} s a release, "
        f"{sum(one.torn for one in found)} keys on two arms"
    )


if __name__ == "__main__":
    main()

"""Whole releases, simulated: how often a sound candidate is rolled back, and a harmful one promoted.

    python bench/release/releases.py [--releases 2000] [--processes 1] [--parts FOLDER [--seconds 240]] [--json FILE]
    python bench/release/releases.py --check 20

Six metrics share alpha: errors, time-outs and latency in a share of the traffic that grows, quality, disagreement and
prediction on mirrored requests. Fresh tests in every step, evidence joined over steps, every look decides. Counts are
drawn, and many releases at once go through the tests that a release uses; the rules around them are written here a
second time, for arrays. `--check` draws some releases of each case and takes them one by one through the very boards and
decisions of a release, with its own finer grid of rates: the end and its moment must be the same. Each line has the 99.9% lower bound of its share
(Clopper-Pearson), to hold beside alpha.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy import stats

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm
from cumulant.release.boards import new_board, with_block, with_differences
from cumulant.release.decide import decide, start
from cumulant.release.look import Failures
from cumulant.release.metrics import Metric, harm_bars, metrics
from cumulant.release.spec import AbSpec, CanarySpec, MetricSpec, ReleaseSpec, ShadowSpec, StagesSpec
from cumulant.release.state import Release, counted
from cumulant.release.steps import Step, steps
from cumulant.statistics.sequential import PairedBlocks, RateDesign, Rates, stages

ALPHA, LOOK, REQUESTS = 0.05, 10.0, 2000
#: releases that share a seed
BLOCK = 250
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = ReleaseSpec(
    stages=StagesSpec(
        shadow=ShadowSpec(mirror="20%", at_least="10m", at_most="10m"),
        ab=AbSpec(at_least="5m", at_most="1h"),
        canary=CanarySpec(at_least="2m", soak="5m", at_most="15m"),
    ),
    metrics={
        "quality": MetricSpec(required=True),
        "disagreement": MetricSpec(margin="2%", required=True),
        "prediction": MetricSpec(margin=0.01, required=True),
    },
)
STEPS: tuple[Step, ...] = steps(SPEC)
NAMED: dict[str, Metric] = metrics(SPEC)
COUNTED, COMPARED = ("errors", "timeouts", "latency"), ("quality", "disagreement", "prediction")
#: of each look of the longest release, its step; and the candidate's share
STEP = np.repeat(
    np.arange(len(STEPS)),
    [round((one.at_most if one is STEPS[-1] else one.at_least) / LOOK) for one in STEPS],
)
SHARE = np.array([STEPS[place].weight / 100 for place in STEP])
#: spread of the log latency of a request, and of its level, which wanders
SIGMA, WANDER = 0.5, 0.1
#: the grid of rates: coarser than a release's own, which takes three times as long
COARSE = RateDesign(lowest=1e-4, highest=0.4, step=0.1)
#: differences of one pair
SPREAD = {"quality": 0.17, "prediction": 0.05}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What the arms are like. Without changes: an A/A release with independent requests.

    `errors`: their share; `times`, `more`: the candidate's over it; `burst`, `shared`: coefficient of variation of the
    rate of errors and time-outs from look to look, of each arm by itself and of both alike; `keys`: each has a rate of
    its own; `slower`: candidate's latency over the champion's; `keep`: autocorrelation of each arm's level from look to look;
    `worse`, `differing`, `moved`: mean differences of the pairs; `drift`: spread of what all pairs of a block share
    (Student's t, 3 degrees of freedom); `block`: looks in a block of failures.
    """

    name: str
    null: bool = True
    errors: float = 0.005
    times: float = 1.0
    more: float = 0.0
    burst: float = 0.0
    shared: float = 0.0
    keys: bool = False
    slower: float = 1.0
    keep: float = 0.0
    worse: float = 0.0
    differing: float = 0.01
    moved: float = 0.0
    drift: float = 0.0
    block: int = 1


CASES = (
    Case(name="A/A, independent"),
    Case(name="A/A, errors 2% in both", errors=0.02),
    Case(name="A/A, bursts of each arm (CV 1)", burst=1.0),
    Case(name="A/A, clustered keys", keys=True),
    Case(name="A/A, latency autocorrelated (0.7), blocks of 80 s", keep=0.7, block=8),
    Case(name="A/A, pairs of a block depend on each other", drift=0.006),
    Case(name="A/A, all of these", keys=True, keep=0.7, block=8, drift=0.006, burst=1.0),
    Case(name="errors just beyond the margin (+0.55 points)", null=False, more=0.0055),
    Case(name="latency just beyond the margin (+27%)", null=False, slower=1.27),
    Case(name="quality just beyond the margin (+0.0055), pairs dependent", null=False, worse=0.0055, drift=0.006),
    Case(name="disagreement just beyond the margin (2.2%)", null=False, differing=0.022),
    Case(name="prediction just beyond the margin (+0.011)", null=False, moved=0.011),
    Case(name="errors x3", null=False, times=3.0),
    Case(name="quality worse by 0.02, pairs of a block dependent", null=False, worse=0.02, drift=0.006),
)


class Drawn(NamedTuple):
    """`requests`, `bad` [metrics, arms, releases, looks]; `pairs` and `means` [metrics, releases, looks]."""

    requests: np.ndarray
    bad: np.ndarray
    pairs: np.ndarray
    means: np.ndarray


def drawn(case: Case, seed: int, releases: int) -> Drawn:
    """All that so many releases may see."""
    rng, shape = np.random.default_rng(seed), (releases, len(STEP))
    requests = np.stack([rng.poisson(REQUESTS * share, shape) for share in (1 - SHARE, SHARE)])
    shared = gamma(rng, case.shared, shape)
    bursts = np.stack([shared * gamma(rng, case.burst, shape) for _ in range(2)])
    times = np.array([1.0, case.times])[:, None, None]
    more = np.array([0.0, case.more])[:, None, None]
    errors = rng.binomial(requests, np.minimum(1, (case.errors * times + more) * bursts))
    if case.keys:
        errors = np.minimum(requests, first_failures(rng, case, bursts))
    timeouts = rng.binomial(requests, np.minimum(1, 0.001 * bursts))
    slow = rng.binomial(requests, np.stack([slow_share(rng, case, shape, arm) for arm in (CHAMPION, CANDIDATE)]))
    pairs = rng.poisson(REQUESTS * 0.2, shape)
    return Drawn(requests, np.stack([errors, timeouts, slow]), *compared(rng, case, pairs))


def gamma(rng: np.random.Generator, variation: float, shape: tuple[int, int]) -> np.ndarray:
    return rng.gamma(variation**-2, variation**2, shape) if variation else np.ones(shape)


def slow_share(rng: np.random.Generator, case: Case, shape: tuple[int, int], arm: str) -> np.ndarray:
    """Of an arm's requests, how many are slower than the champion's 95th percentile; the candidate's bound is raised."""
    z = rng.normal(size=shape)
    for look in range(1, shape[1]):
        z[:, look] = case.keep * z[:, look - 1] + math.sqrt(1 - case.keep**2) * z[:, look]
    bound = stats.norm.isf(0.05) * math.hypot(SIGMA, WANDER)
    if arm == CANDIDATE:
        bound += math.log(1 + (NAMED["latency"].margin or 0)) - math.log(case.slower)
    return stats.norm.sf((bound - WANDER * z) / SIGMA)


def first_failures(rng: np.random.Generator, case: Case, bursts: np.ndarray, number: int = 20_000) -> np.ndarray:
    """Keys with Pareto(1.2) activity and gamma rates of failure (shape 1/4); a key's first failure counts [arms, ...]."""
    counts = np.zeros(bursts.shape, dtype=np.int64)
    begin = int(np.argmax(SHARE > 0))
    for release in range(bursts.shape[1]):
        activity = np.minimum(rng.pareto(1.2, number) + 1, 2000)
        rate = case.errors * rng.gamma(0.25, 4, number) * activity * REQUESTS / activity.sum()
        place = rng.random(number)
        due = rng.exponential(size=number) / np.maximum(rate, 1e-12)
        for arm in (0, 1):
            # time runs as fast as the arm's bursts say; a key is in the arm that its place and the look's share give
            clock = begin + np.cumsum(bursts[arm, release, begin:])
            look = begin + np.searchsorted(clock, begin + due)
            seen = look < len(STEP)
            mine = (place[seen] < SHARE[look[seen]]) == bool(arm)
            counts[arm, release] = np.bincount(look[seen][mine], minlength=len(STEP))
    return counts


def compared(rng: np.random.Generator, case: Case, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = np.maximum(pairs, 1)
    means = {}
    for name, effect in (("quality", case.worse), ("prediction", case.moved)):
        common = case.drift * rng.standard_t(3, pairs.shape) / math.sqrt(3) if case.drift else 0.0
        means[name] = effect + common + rng.normal(size=pairs.shape) * SPREAD[name] / np.sqrt(count)
    spread = np.clip(case.differing * gamma(rng, 0.3 if case.drift else 0.0, pairs.shape), 0, 1)
    means["disagreement"] = rng.binomial(count, spread) / count
    return np.stack([count] * len(COMPARED)), np.stack([means[name] for name in COMPARED])


class Watched:
    """The evidence of one metric in many releases at once: the greatest up to now, and what matters."""

    def __init__(self, name: str, releases: int) -> None:
        self.metric = NAMED[name]
        self.most = np.zeros((2, releases))
        self.above = np.zeros(releases, dtype=bool)

    def proven(self, evidence: Sequence[np.ndarray]) -> None:
        self.most = np.maximum(self.most, np.stack(evidence))


class Counted(Watched):
    """A metric of failures."""

    def __init__(self, name: str, releases: int, design: RateDesign) -> None:
        super().__init__(name, releases)
        self.design = design
        self.past: list[np.ndarray] = []
        self.latest = np.zeros((2, releases))
        self.step = -1

    def add(self, step: int, requests: np.ndarray, bad: np.ndarray) -> None:
        """One more block [arms, releases]."""
        if step != self.step:
            self.past += [self.latest] if self.step >= 0 else []
            self.step, self.test = step, Rates.start(self.design, batch=requests.shape[1:])
            self.sums = np.zeros((2, *requests.shape))
        self.test = self.test.add(
            champion_requests=requests[0], champion_bad=bad[0], candidate_requests=requests[1], candidate_bad=bad[1]
        )
        self.sums = self.sums + np.stack([requests, bad])
        margin, latency = self.metric.margin or 0.0, self.metric.kind == "latency"
        harm, fine = self.test.log_harm(), self.latest[1]
        open_ = self.most[1] < -math.log(ALPHA)  # a proof does not lapse, so that it need not be looked at again
        if open_.any():
            fine = np.where(open_, 0.0, fine)
            fine[open_] = picked(self.test, open_).log_not_worse(difference=0.0 if latency else margin)
        self.latest = np.stack([harm, fine])
        sides = [*self.past, self.latest]
        self.proven([stages([side[which] for side in sides]) for which in (0, 1)])
        champion, candidate = self.sums[1] / np.maximum(self.sums[0], 1)
        self.above = np.full(len(champion), True) if latency else (candidate - champion > margin)
        self.above |= False if latency else candidate >= 2 * champion

    def kept(self, alive: np.ndarray) -> None:
        self.most, self.above, self.latest = self.most[:, alive], self.above[alive], self.latest[:, alive]
        self.past = [side[:, alive] for side in self.past]
        if self.step >= 0:
            self.test = picked(self.test, alive)
            self.sums = self.sums[..., alive]


def picked(test: Rates, chosen: np.ndarray) -> Rates:
    """The state of some of the releases."""
    return Rates(test.design, test.champion[chosen], test.candidate[chosen], test.blocks)


class Compared(Watched):
    """A metric of pairs; only the shadow has them, in which no release ends well."""

    def __init__(self, name: str, releases: int) -> None:
        super().__init__(name, releases)
        margin = self.metric.margin or 0.0
        self.test = PairedBlocks.start(margin=margin, edge=margin if name == "disagreement" else 0.0, batch=(releases,))
        self.sums = np.zeros((2, releases))

    def add(self, means: np.ndarray, pairs: np.ndarray) -> None:
        """One more block [releases]."""
        self.test = self.test.add(means, pairs)
        self.proven([self.test.log_harm(), self.test.log_not_worse()])
        self.sums = self.sums + np.stack([pairs, pairs * means])
        mean = self.sums[1] / self.sums[0]
        self.above = mean > (self.metric.margin or 0.0)
        if self.metric.unit == "%":  # nothing is twice the champion's nought
            self.above |= mean >= 0

    def kept(self, alive: np.ndarray) -> None:
        self.most, self.above = self.most[:, alive], self.above[alive]


def simulated(case: Case, seed: int, releases: int = BLOCK, design: RateDesign = COARSE) -> list[tuple[str, float]]:
    """How each release ends, and after how many seconds."""
    data = drawn(case, seed, releases)
    bars = harm_bars(NAMED, ALPHA)
    counts = [Counted(name, releases, design) for name in COUNTED]
    pairs = [Compared(name, releases) for name in COMPARED]
    who, ends = np.arange(releases), [("inconclusive", LOOK * len(STEP))] * releases
    for look, step in enumerate(STEP):
        within = look - int(np.argmax(step == STEP)) + 1
        if not SHARE[look]:
            for place, one in enumerate(pairs):
                one.add(data.means[place][who, look], data.pairs[place][who, look])
        elif within % case.block == 0:
            block = slice(look + 1 - case.block, look + 1)
            requests = data.requests[:, who, block].sum(-1)
            for place, board in enumerate(counts):
                board.add(int(step), requests, data.bad[place][:, who, block].sum(-1))
        every = [*counts, *pairs]
        back = np.any([(one.most[0] >= bars[one.metric.name]) & one.above for one in every], axis=0)
        good = np.all([one.most[1] >= -math.log(ALPHA) for one in every if one.metric.required], axis=0)
        good &= step == STEP[-1] and within * LOOK >= STEPS[-1].at_least
        for chosen, word in ((good, "promoted"), (back, "rolled_back")):
            for release in who[chosen]:
                ends[release] = (word, LOOK * (look + 1))
        alive = ~(good | back)
        if not alive.all():
            who = who[alive]
            for one in every:
                one.kept(alive)
            if not SHARE[look]:  # pairs go on
                for one in pairs:
                    one.test, one.sums = _picked(one.test, alive), one.sums[:, alive]
        if not len(who):
            break
    return ends


def _picked(test: PairedBlocks, alive: np.ndarray) -> PairedBlocks:
    """The state of some of the releases."""
    stored: dict[str, Any] = test.to_json()
    stored["pairs"] = test.pairs[alive]
    for side in ("worse", "better"):
        stored[side] = {name: np.asarray(stored[side][name])[alive] for name in ("squares", "capital")}
        stored[side]["blocks"] = test.worse.blocks
    return PairedBlocks.from_json(stored)


def one_by_one(case: Case, seed: int, releases: int) -> Iterator[tuple[str, float]]:
    """The same by the boards and decisions of a release."""
    data, bars = drawn(case, seed, releases), harm_bars(NAMED, ALPHA)
    arms = [Arm(name=name, version=name, endpoints=()) for name in (CHAMPION, CANDIDATE)]
    made = Release(id="s", model="m", champion=arms[0], candidate=arms[1], spec=SPEC, steps=STEPS, begun=MOMENT)
    for release in range(releases):
        now, spent, held = start(made), 0, 0
        boards = {name: new_board(one, harm_bar=bars[name], fine_bar=-math.log(ALPHA)) for name, one in NAMED.items()}
        while not now.over:
            at, requests = now.at, data.requests[:, release, spent]
            held = held + 1 if now.step.weight else 0
            if not now.step.weight:
                requests = np.array([0, data.pairs[0, release, spent]])
                for place, name in enumerate(COMPARED):
                    values = [(0.0, float(data.means[place, release, spent]))] * int(data.pairs[place, release, spent])
                    boards[name] = with_differences(boards[name], NAMED[name], values, looks=1)
            elif held == case.block:
                held, block = 0, slice(spent + 1 - case.block, spent + 1)
                for place, name in enumerate(COUNTED):
                    full = Failures(
                        requests=_arms(data.requests[:, release, block].sum(-1)),
                        bad=_arms(data.bad[place, :, release, block].sum(-1)),
                    )
                    boards[name] = with_block(boards[name], NAMED[name], full, step=at)
            now = counted(now, _arms(requests), LOOK)
            now = decide(msgspec.structs.replace(now, boards=boards), at=MOMENT)
            held, spent = held if now.at == at else 0, spent + 1
        yield now.status, LOOK * spent


def _arms(values: np.ndarray) -> dict[str, int]:
    return {CHAMPION: int(values[0]), CANDIDATE: int(values[1])}


def check(releases: int) -> None:
    """Both ways must tell the same.

    Raises:
        SystemExit: they do not.
    """
    for place, case in enumerate(CASES):
        found, true = simulated(case, place, releases, RateDesign()), list(one_by_one(case, place, releases))
        print(
            f"{case.name}: {sum(a == b for a, b in zip(found, true, strict=True))} of {releases} are the same",
            flush=True,
        )
        if found != true:
            sys.exit(f"not the same: {[pair for pair in zip(found, true, strict=True) if pair[0] != pair[1]]}")


def kept(parts: Path | None, until: float, task: tuple[Case, int]) -> tuple[str, list[tuple[str, float]] | None]:
    """How a block of releases ends, from the folder `parts` where an earlier run kept it; None: no time is left."""
    case, seed = task
    path = None if parts is None else parts / f"{CASES.index(case)}-{seed}.json"
    if path is not None and path.exists():
        return case.name, [(word, when) for word, when in json.loads(path.read_text())]
    if time.time() > until:
        return case.name, None
    found = simulated(case, seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps(found))
        path.with_suffix(".new").rename(path)
    return case.name, found


def summary(found: list[tuple[str, float]]) -> dict[str, Any]:
    told: dict[str, Any] = {"releases": len(found)}
    for word in ("rolled_back", "promoted", "inconclusive"):
        when = sorted(seconds for end, seconds in found if end == word)
        lower = float(stats.beta.ppf(0.001, len(when), len(found) - len(when) + 1)) if when else 0.0
        told[word] = {"share": len(when) / len(found), "lower_99_9": round(lower, 6), "median_s": None}
        if when:
            told[word]["median_s"] = when[(len(when) - 1) // 2]
    return told


def row(name: str, told: dict[str, Any]) -> str:
    shares = " | ".join(f"{told[word]['share']:.2%}" for word in ("rolled_back", "promoted", "inconclusive"))
    seconds = " | ".join(f"{told[word]['median_s'] or ''}" for word in ("rolled_back", "promoted"))
    lower = " | ".join(f"{told[word]['lower_99_9']:.2%}" for word in ("rolled_back", "promoted"))
    return f"| {name} | {shares} | {seconds} | {lower} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--releases", type=int, default=2000, help=f"in steps of {BLOCK}")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", type=Path, help="a folder that keeps each block of releases: a later run goes on")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no block after so long; exit code 3")
    parser.add_argument("--check", type=int, metavar="N", help="only compare N releases of each case, both ways")
    asked = parser.parse_args()
    if asked.check:
        check(asked.check)
        return
    tasks = [(case, 1 + place) for place in range(max(1, asked.releases // BLOCK)) for case in CASES]
    found: dict[str, list[tuple[str, float]]] = {case.name: [] for case in CASES}
    left = 0
    with ProcessPoolExecutor(asked.processes) as pool:
        for name, ends in pool.map(partial(kept, asked.parts, time.time() + asked.seconds), tasks):
            found[name] += ends or []
            left += ends is None
    if left:
        print(f"{left} of {len(tasks)} blocks are left")
        raise SystemExit(3)
    told = {name: summary(ends) for name, ends in found.items()}
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    print(
        "| case | rolled back | promoted | inconclusive | median s to roll back | to promote | lower bounds of rolled back | of promoted |"
    )
    print("| --- " * 8 + "|")
    print("\n".join(row(name, one) for name, one in told.items()))


if __name__ == "__main__":
    main()

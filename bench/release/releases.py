"""Whole releases, simulated: how often a sound candidate is rolled back, and a harmful one promoted.

Run: `python bench/release/releases.py [--releases 2000] [--jobs 2]`. Requests are drawn as counts, one block a look, and go through the very
boards and decisions of a release: three metrics that share alpha, fresh tests in every step, evidence joined over steps.
Each line is printed with the 99.9% lower bound of its share (Clopper-Pearson), to hold beside alpha.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

import msgspec
import numpy as np
from scipy.stats import beta

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm
from cumulant.release.boards import new_board, with_block
from cumulant.release.decide import decide, start
from cumulant.release.look import ARMS, Failures
from cumulant.release.metrics import harm_bars, metrics
from cumulant.release.spec import AbSpec, CanarySpec, ReleaseSpec, StagesSpec
from cumulant.release.state import Release, counted
from cumulant.release.steps import steps

ALPHA = 0.05
LOOK = 10.0
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = ReleaseSpec(
    stages=StagesSpec(
        shadow=None,
        ab=AbSpec(at_least="10m", at_most="1h"),
        canary=CanarySpec(at_least="5m", soak="10m", at_most="1h"),
    )
)
JUDGED = ("errors", "timeouts", "latency")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of bad requests by metric in the champion, how many times that in the candidate, and how they come."""

    name: str
    rates: tuple[float, float, float] = (0.005, 0.001, 0.05)
    #: an equally fast candidate exceeds the bound that the margin has raised about half as often
    times: tuple[float, float, float] = (1.0, 1.0, 0.5)
    more: float = 0.0
    burst: float = 0.0
    shared: float = 0.0
    requests: float = 200.0


CASES = (
    Case(name="A/A, independent"),
    Case(name="A/A, both at 2%", rates=(0.02, 0.001, 0.05)),
    Case(name="A/A, bursts of each arm (CV 1)", burst=1.0),
    Case(name="A/A, shared bursts (CV 1)", shared=1.0),
    Case(name="errors x 1.5", times=(1.5, 1.0, 0.5)),
    Case(name="errors x 2", times=(2.0, 1.0, 0.5)),
    Case(name="errors x 3", times=(3.0, 1.0, 0.5)),
    Case(name="errors at the margin (+0.5 points)", more=0.005),
    Case(name="errors just beyond it (+0.55 points)", more=0.0055),
)


def _release() -> Release:
    arms = [Arm(name=name, version=name, endpoints=()) for name in ("champion", "candidate")]
    return Release(id="s", model="m", champion=arms[0], candidate=arms[1], spec=SPEC, steps=steps(SPEC), begun=MOMENT)


def _bursts(draw: np.random.Generator, variation: float) -> float:
    return 1.0 if not variation else float(draw.gamma(1 / variation**2, variation**2))


def _block(draw: np.random.Generator, case: Case, number: int, weight: float) -> Failures:
    shared = _bursts(draw, case.shared)
    requests, bad = {}, {}
    for arm, share in ((CHAMPION, 1 - weight), (CANDIDATE, weight)):
        requests[arm] = int(draw.poisson(case.requests * LOOK * share))
        rate = case.rates[number] * (case.times[number] if arm == CANDIDATE else 1.0)
        rate += case.more if arm == CANDIDATE and number == 0 else 0.0
        bad[arm] = int(draw.binomial(requests[arm], min(1.0, rate * shared * _bursts(draw, case.burst))))
    return Failures(requests=requests, bad=bad)


def simulated(case: Case, seed: int) -> tuple[str, float]:
    """How one release ends, and after how many seconds."""
    draw, now, spent = np.random.default_rng(seed), start(_release()), 0.0
    named = {name: metric for name, metric in metrics(SPEC).items() if name in JUDGED}
    bars = harm_bars(metrics(SPEC), ALPHA)
    boards = {name: new_board(one, harm_bar=bars[name], fine_bar=-np.log(ALPHA)) for name, one in named.items()}
    while not now.over:
        weight = now.step.weight / 100
        blocks = {name: _block(draw, case, number, weight) for number, name in enumerate(JUDGED)}
        boards = {name: with_block(boards[name], named[name], blocks[name], step=now.at) for name in JUDGED}
        now = counted(now, {arm: blocks["errors"].requests[arm] for arm in ARMS}, LOOK)
        now = decide(msgspec.structs.replace(now, boards=boards), at=MOMENT)
        spent += LOOK
    return now.status, spent


def _lowest(count: int, whole: int) -> float:
    return 0.0 if count == 0 else float(beta.ppf(0.001, count, whole - count + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    print("| case | rolled back | promoted | inconclusive | median s to roll back | 99.9% lower bound of rolled back |")
    print("| --- | --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(asked.jobs) as pool:
        for case in CASES:
            found = list(pool.map(simulated, [case] * asked.releases, range(asked.releases), chunksize=8))
            ends, back = Counter(one for one, _ in found), [spent for end, spent in found if end == "rolled_back"]
            shares = " | ".join(f"{ends[end] / len(found):.3f}" for end in ("rolled_back", "promoted", "inconclusive"))
            median = f"{np.median(back):.0f}" if back else ""
            print(f"| {case.name} | {shares} | {median} | {_lowest(len(back), len(found)):.3f} |", flush=True)


if __name__ == "__main__":
    main()

"""Releases and traffic made for tests: every request is drawn from stated rates, with a seed."""

from __future__ import annotations

import math
import zlib
from datetime import UTC, datetime

import msgspec
import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Exchange
from cumulant.project.release_section import release_policy
from cumulant.release.decide import act_on_failure, build_failure_reference, decide, start
from cumulant.release.evidence.accumulate import count_look, with_history
from cumulant.release.evidence.champion_history import ChampionHistory
from cumulant.release.evidence.health import HardFailure, RecentHealth, find_hard_failure
from cumulant.release.evidence.look import Look, LossPair, LossPairs, Requests, ScorePair, ScorePairs, counting
from cumulant.release.evidence.metrics import ReleaseMetric
from cumulant.release.policy import ReleasePolicy
from cumulant.release.spec import AbSpec, CanarySpec, ReleaseSpec, ShadowSpec, StagesSpec
from cumulant.release.state import Board, Release
from cumulant.release.steps import ReleaseStep

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)
QUICK = StagesSpec(
    shadow=ShadowSpec(at_least="20s", at_most="10m", samples=100),
    ab=AbSpec(at_least="60s", at_most="30m", samples=500),
    canary=CanarySpec(at_least="30s", soak="60s", at_most="30m", samples=200),
)


def policy_with(**spec: object) -> ReleasePolicy:
    """The policy of a section `release` with these keys."""
    return release_policy(ReleaseSpec(**spec))


def release(policy: ReleasePolicy | None = None, **other: object) -> Release:
    """A pending release of version 2 beside version 1, in quick stages."""
    made = Release(
        id="r1",
        model="late",
        champion=Arm(name="champion", version="1", endpoints=("http://127.0.0.1:1",)),
        candidate=Arm(name="candidate", version="2", endpoints=("http://127.0.0.1:2",)),
        policy=policy or policy_with(stages=QUICK),
        begun=MOMENT,
    )
    return msgspec.structs.replace(made, **other)


def with_steps(now: Release, *steps: ReleaseStep) -> Release:
    """The release with other steps."""
    return msgspec.structs.replace(now, policy=msgspec.structs.replace(now.policy, steps=steps))


class World:
    """Requests a second, what part of them fails in each arm, and how long they take (log-normal, in ms)."""

    def __init__(
        self,
        *,
        seed: int,
        rate: float = 200,
        errors: dict[str, float] | None = None,
        took: dict[str, float] | None = None,
        brier: dict[str, float] | None = None,
        keys: int = 5000,
    ) -> None:
        self.draw = np.random.default_rng(seed)
        self.rate = rate
        self.errors = {CHAMPION: 0.005, CANDIDATE: 0.005} | (errors or {})
        self.took = {CHAMPION: 5.0, CANDIDATE: 5.0} | (took or {})
        self.brier = {CHAMPION: 0.1, CANDIDATE: 0.1} | (brier or {})
        self.keys = keys

    def look(self, now: Release, seconds: float = 10) -> Look:
        exchanges, pairs = self.exchanges(now, seconds), self.pairs(now, seconds)
        return Look(
            seconds=seconds,
            requests=counted_requests(now, exchanges),
            pairs=ScorePairs.of(pairs),
            losses=LossPairs.of(self._graded(len(pairs))),
        )

    def exchanges(self, now: Release, seconds: float = 10) -> list[Exchange]:
        count = int(self.draw.poisson(self.rate * seconds))
        keys = self.draw.integers(self.keys, size=count)
        return [self._exchange(now, int(key)) for key in keys]

    def pairs(self, now: Release, seconds: float = 10) -> list[ScorePair]:
        count = int(self.draw.poisson(self.rate * seconds * now.mirror / 100))
        scores = self.draw.uniform(size=(count, 2))
        return [ScorePair(champion=a, candidate=b, differs=(a > 0.5) != (b > 0.5)) for a, b in scores]

    def _exchange(self, now: Release, key: int) -> Exchange:
        candidate = zlib.crc32(b"split %d" % key) % 10_000 < now.weight * 100
        arm = CANDIDATE if candidate else CHAMPION
        bad = self.draw.random() < self.errors[arm]
        return Exchange(
            request="r",
            time=0,
            model=now.model,
            assigned=arm,
            served=arm,
            status=500 if bad else 200,
            duration_us=int(self.took[arm] * 1000 * math.exp(0.4 * self.draw.standard_normal())),
            key=f"k{key}",
            revision=now.revision,
        )

    def _graded(self, count: int) -> list[LossPair]:
        hits = self.draw.uniform(size=(count, 2)) < [self.brier[CHAMPION], self.brier[CANDIDATE]]
        return [LossPair(champion=float(a), candidate=float(b)) for a, b in hits]


def counted_requests(now: Release, exchanges: list[Exchange]) -> Requests:
    """The columns of the exchanges that a comparison counts."""
    return Requests.of(counting(exchanges, model=now.model, revision=now.revision))


def remembered(
    now: Release, *, looks: int = 500, rate: float = 200, errors: float = 0.005, slow: float = 9.65
) -> Release:
    """The release with a history of independent looks of its champion; `slow`: milliseconds of its 95th percentile."""
    draw = np.random.default_rng(0)
    requests = draw.poisson(rate * 10, looks).astype(float)
    bad = np.stack([draw.binomial(requests.astype(int), share) for share in (errors, 0.0, 0.05)], axis=1)
    return with_history(now, ChampionHistory(requests=requests, bad=bad.astype(float), slow_us=slow * 1000))


def all_shown(now: Release) -> Release:
    """The release at the end of its last step, with all that a promotion needs."""
    board = Board(metric="errors", unit="%", margin=0.005, harm_bar=4.5, fine_bar=3.0, fine=4.0, most_fine=4.0)
    return msgspec.structs.replace(
        remembered(now),
        at=len(now.steps) - 1,
        seconds=1e6,
        samples={CHAMPION: 10_000, CANDIDATE: 10_000},
        boards={"errors": board},
    )


def played(world: World, now: Release, *, most: int = 2000, until: str = "") -> Release:
    """The release after looks every ten seconds until it is over, or until the step of a label begins."""
    now = start(now)
    for _ in range(most):
        if now.step.label == until or now.over or now.status == "awaiting_approval":
            return now
        counted, skewed = count_look(now, world.look(now))
        now = decide(counted, skewed=skewed, at=MOMENT)
    return now


def hard_failure(now: Release, health: RecentHealth) -> HardFailure | None:
    """The candidate's hard failure in a release."""
    return find_hard_failure(health, now.policy.ceilings, build_failure_reference(now))


def checked(now: Release, health: RecentHealth) -> Release:
    """The release after the check of each second."""
    return act_on_failure(now, hard_failure(now, health), at=MOMENT)


def new_board(metric: ReleaseMetric, *, harm_bar: float, fine_bar: float) -> Board:
    """A metric of which nothing is known yet."""
    required = metric.required and metric.margin is not None
    return Board(
        metric=metric.name,
        unit=metric.unit,
        margin=metric.margin,
        required=required,
        harm_bar=harm_bar,
        fine_bar=fine_bar,
    )

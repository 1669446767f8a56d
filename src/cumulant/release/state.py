"""The state of a release: one row, from which routes, servers and aliases follow."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

import msgspec

from cumulant.core.structs import struct_from
from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Limits, Routes
from cumulant.release.paired.paired_records import PairedEvaluation
from cumulant.release.policy import ReleasePolicy
from cumulant.release.steps import ReleaseStep

Status = Literal[
    "pending", "running", "paused", "awaiting_approval", "inconclusive", "promoted", "rolled_back", "superseded"
]
ENDED: frozenset[Status] = frozenset({"inconclusive", "promoted", "rolled_back", "superseded"})


class PassedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that is over: active seconds in it, and requests an arm that counted."""

    label: str
    stage: str
    weight: float
    seconds: float
    samples: dict[str, int]


class MetricVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence of one metric shows. A candidate may be worse and acceptable: worse within the margin."""

    #: the candidate is worse, however little; and by so much that the release ends
    worse: bool
    harmful: bool
    #: not worse by more than the margin: with evidence of before the release, and by the release alone
    acceptable: bool
    acceptable_alone: bool


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one metric at a look. `harm` and `fine` are logarithms of e-values.

    `harm` is the evidence that the candidate is worse, `fine` that it is not worse by more than the margin. They prove
    it from `harm_bar` and `fine_bar` up; metrics share alpha for harm, and each `fine` has the whole of it.
    """

    metric: str
    unit: str = ""
    margin: float | None = None
    required: bool = True
    harm: float = 0.0
    fine: float = 0.0
    #: greatest `harm` and `fine` up to now. Harm that was proven stays so; that there is none must be shown now
    most_harm: float = 0.0
    most_fine: float = 0.0
    #: evidence of no harm from before the release: the paired evaluation's
    prior: float = 0.0
    #: None: the metric is reported and decides nothing
    harm_bar: float | None
    fine_bar: float
    #: the difference so far is beyond the margin: no step advances
    beyond: bool = False
    #: a harm that is proven is large enough to act on
    confirmed: bool = False
    samples: dict[str, int] = {}
    champion: float | None = None
    candidate: float | None = None
    low: float | None = None
    high: float | None = None
    state: dict[str, object] = {}

    @property
    def combined_fine(self) -> float:
        """Evidence of no harm, in logarithms: that of the release, and that of before it with equal weights."""
        if not self.prior:
            return self.fine
        high, low = max(self.fine, self.prior), min(self.fine, self.prior)
        return high + math.log1p(math.exp(low - high)) - math.log(2)

    @property
    def verdict(self) -> MetricVerdict:
        """The evidence against its bars; the only place that compares them."""
        worse = self.harm_bar is not None and self.most_harm >= self.harm_bar
        return MetricVerdict(
            worse=worse,
            harmful=worse and self.confirmed,
            acceptable=self.combined_fine >= self.fine_bar,
            acceptable_alone=self.fine >= self.fine_bar,
        )


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A release. Times in it are wall-clock times, for display; decisions count active seconds."""

    id: str
    model: str
    champion: Arm
    candidate: Arm
    policy: ReleasePolicy
    status: Status = "pending"
    #: the step that is held, an index of `steps`
    at: int = 0
    #: active seconds in that step, and requests of each arm that counted
    seconds: float = 0.0
    samples: dict[str, int] = {}
    passed: tuple[PassedStep, ...] = ()
    boards: dict[str, Board] = {}
    #: what the figures keep from look to look
    memory: dict[str, object] = {}
    #: looks in one block of evidence: as many as it takes until neighbours no longer depend on each other
    looks_a_block: int = 1
    #: the same by metric, where it is another number
    looks_by_metric: dict[str, int] = {}
    #: fewest pairs of a block by metric, where the paired evaluation asks for more than the metric does
    fewest_by_metric: dict[str, int] = {}
    #: what was agreed to: `canary`, `promote`
    approved: frozenset[str] = frozenset()
    #: the objective of the served model that stops it now, in a sentence, and who overrides that and why; else empty
    slo_hold: str = ""
    slo_override: str = ""
    #: whoever must not approve where `not: author`
    author: str = ""
    begun: datetime
    ended: datetime | None = None
    #: one sentence, the newest
    reason: str = ""
    #: the rollback that ended it, as the routes name it; empty: it ended otherwise, or before routes named rollbacks
    rollback: str = ""
    #: what has been done of what an ended release asks for: `alias`, `tags`, `told`, `drained`
    settled: frozenset[str] = frozenset()
    #: of the routes; only ever grows
    revision: int = 1
    #: both versions on labelled rows of the recent past; None where there are none
    evaluation: PairedEvaluation | None = None
    #: of the gateway's log: everything before it is counted
    cursor: str = ""
    #: of the gateway's log: its end when the release began; empty: the release is of a version that did not store it
    start_cursor: str = ""
    limits: Limits = Limits()

    @property
    def steps(self) -> tuple[ReleaseStep, ...]:
        return self.policy.steps

    @property
    def step(self) -> ReleaseStep:
        return self.steps[self.at]

    def looks(self, metric: str) -> int:
        """How many looks make a block of a metric's evidence."""
        return self.looks_by_metric.get(metric, self.looks_a_block)

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def weight(self) -> float:
        """Percent of the keys that the candidate should have now."""
        if self.status == "promoted":
            return 100.0
        return 0.0 if self.over or self.status == "pending" else self.step.weight

    @property
    def mirror(self) -> float:
        return 0.0 if self.over or self.status == "pending" else self.step.mirror


def desired_routes(release: Release) -> Routes:
    """What the gateway should work by. After a promotion the candidate's servers are the champion's."""
    if release.status == "promoted":
        arm = msgspec.structs.replace(release.candidate, name=CHAMPION)
        return Routes(
            model=release.model, revision=release.revision, champion=arm, key=release.policy.key, limits=release.limits
        )
    return struct_from(Routes, release, key=release.policy.key, rollback="")


def add_samples(release: Release, samples: dict[str, int], seconds: float) -> Release:
    """The release after `seconds` more in its step, in which so many requests counted; a pause is no time of it."""
    total = {arm: release.samples.get(arm, 0) + samples.get(arm, 0) for arm in (CHAMPION, CANDIDATE)}
    active = 0.0 if release.status == "paused" else seconds
    return msgspec.structs.replace(release, samples=total, seconds=release.seconds + active)

"""Power of one release step, planned as a stage: the failures or latency it detects, and when, by simulated tests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from cumulant.release.evidence.harm_sizes import BEYOND_ERRORS, size_of
from cumulant.statistics.sequential.power import (
    ArmTraffic,
    harm_is_seen,
    harm_seconds,
    not_worse_looks,
    not_worse_seconds,
)

if TYPE_CHECKING:
    from cumulant.release.evidence.metrics import ReleaseMetric
    from cumulant.release.policy import ReleasePolicy
    from cumulant.release.steps import ReleaseStep

#: simulated: looks at most (longer ones are simulated in coarser looks), and releases for a harm and for a time
_LOOKS, _RELEASES, _TIMED = 40, 100, 60
_POWER = 0.8
#: of harm, against the champion's rate
_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
#: failures of the candidate below which no test of failures can decide
_FEWEST = 3.0
#: of a candidate as fast as the champion: how often it exceeds a bound raised by a quarter, against the bound itself
_FASTER, _NONE = 0.4, 1e-6
#: standard errors by which a harm must exceed what is accepted, so that 80% of releases act on it
_ERRORS = BEYOND_ERRORS + 0.84
#: a time that is simulated first, in times what a test without bursts takes, and by how much it then grows
_TIMES_USUAL, _LONGER = 5.0, 4.0
#: looks of the shortest such time
_FEWEST_LOOKS = 12
#: bad events of an arm, beyond which more would prove about as much: in one of the shortest looks (at 100 the time of a
#: small margin is three times too long), and in all looks, as a release's own test begins afresh where it has seen more
#: than its grid of rates resolves
_EVENTS, _RESOLVED = 1_000.0, 10_000.0
#: looks within which a time is found too coarsely, and how often it is simulated again in finer ones
_COARSE, _FINER = 5, 4


class MetricPower(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage can see of one metric. Times in seconds; None: not within its longest time."""

    metric: str
    #: the smallest harm seen with 80% power in the stage's shortest and in its longest time, as a multiple of the rate
    harm_shortest: float | None
    harm_longest: float | None
    #: until a candidate that is just as good is shown to be within its margin
    fine_seconds: float | None
    margin: float


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One step at the given traffic."""

    name: str
    weight: float
    mirror: float
    #: requests a second of both arms with which the stage is planned
    rate: float
    #: requests of the candidate in the longest time
    requests: float
    at_least: float
    at_most: float
    samples: int
    #: until the fewest requests are there
    samples_seconds: float
    #: the step is over then, at the earliest
    seconds: float
    metrics: list[MetricPower]


@dataclass(frozen=True, kw_only=True)
class StepPower:
    """One metric of one step at `rate` requests a second, of which the share `bad` is bad today."""

    step: ReleaseStep
    rate: float
    policy: ReleasePolicy
    metric: ReleaseMetric
    bad: float

    def smallest_harm(self, within: float, alpha: float, *, known: float | None = None) -> float | None:
        """The smallest harm, in times the champion's rate, that 80% of releases see and act on in so many seconds.

        `known`: one that is seen in a shorter time, so in this one too.
        """
        traffic, looks = self._traffic(within)
        for ratio in _RATIOS:
            if ratio == known:
                return ratio
            if self.metric.kind == "failures" and not self._acted_on(traffic, looks, ratio):
                continue
            # Where fewer failures are expected than any test needs, nothing is to be simulated.
            if self.bad * ratio * traffic.candidate * looks < _FEWEST:
                continue
            if self.bad * ratio >= 1:
                return None
            if self._is_detected(ratio, within, alpha):
                return ratio
        return None

    def fine_seconds(self) -> float | None:
        """Time until an equal candidate is shown to be so in 80% of releases; None: not within the step."""
        usual = not_worse_seconds(
            self._traffic(self.step.at_most)[0],
            rate=self.bad,
            margin=self._margin,
            ratio=self._ratio,
            alpha=self.policy.alpha,
        )
        times = map(self._shown, self._growing(usual, self.step.at_most))
        shown = next((time for time in times if time is not None), None)
        for _ in range(_FINER):
            if shown is None or shown[1]:
                break
            shown = self._shown(shown[0] * 1.5) or (shown[0], True)
        return None if shown is None else shown[0]

    def _shown(self, within: float) -> tuple[float, bool] | None:
        """When, and whether that is exact enough."""
        traffic, looks = self._simulated(within)
        looks_needed = not_worse_looks(
            traffic,
            rate=self.bad,
            margin=self._margin,
            ratio=self._ratio,
            alpha=self.policy.alpha,
            looks=looks,
            wanted=_POWER,
            releases=_TIMED,
        )
        if looks_needed is None:
            return None
        return looks_needed * traffic.seconds, looks_needed > _COARSE or traffic.seconds <= self._block

    def _is_detected(self, ratio: float, within: float, alpha: float) -> bool:
        usual = harm_seconds(self._traffic(within)[0], rate=self.bad, ratio=ratio, alpha=alpha)
        for time in self._growing(usual, within):
            traffic, looks = self._simulated(time)
            if harm_is_seen(
                traffic, rate=self.bad, ratio=ratio, alpha=alpha, looks=looks, wanted=_POWER, releases=_RELEASES
            ):
                return True
        return False

    def _acted_on(self, traffic: ArmTraffic, looks: int, ratio: float) -> bool:
        """Whether a harm of that size is acted on when it is proven: surely beyond the margin, or twice the rate."""
        n, m = traffic.champion * looks, traffic.candidate * looks
        counts = [(n, self.bad * n, m, self.bad * ratio * m)]
        size = size_of(counts, self.metric, usual=self.bad, weighed=1.0)
        return size.difference - size.accepted > _ERRORS * size.error

    def _growing(self, usual: float, within: float) -> Iterator[float]:
        """Times up to `within`, from little more than the test needs: longer ones have coarser looks."""
        time = max(_TIMES_USUAL * usual, _FEWEST_LOOKS * self._block)
        while time < within:
            yield time
            time *= _LONGER
        yield within

    def _traffic(self, within: float) -> tuple[ArmTraffic, int]:
        """Looks of equal length that fill the time, no shorter than the policy's blocks of evidence."""
        seconds = max(self._block, within / _LOOKS)
        share_of = self.step.weight / 100
        traffic = ArmTraffic(
            champion=self.rate * (1 - share_of) * seconds, candidate=self.rate * share_of * seconds, seconds=seconds
        )
        return traffic, max(1, int(within / seconds))

    def _simulated(self, within: float) -> tuple[ArmTraffic, int]:
        """The same with no more bad events than prove about as much: their number costs time."""
        traffic, looks = self._traffic(within)
        most = _RESOLVED / looks if traffic.seconds > self._block else _EVENTS
        part = most / (self.bad * min(traffic.champion, traffic.candidate))
        if part >= 1:
            return traffic, looks
        arms = {"champion": traffic.champion * part, "candidate": traffic.candidate * part}
        return ArmTraffic(**arms, seconds=traffic.seconds), looks

    @property
    def _margin(self) -> float:
        return (self.metric.margin or 0.0) if self.metric.kind == "failures" else _NONE

    @property
    def _ratio(self) -> float:
        """A candidate that is as fast as the champion exceeds a bound that is raised by the margin less often."""
        return 1.0 if self.metric.kind == "failures" else _FASTER

    @cached_property
    def _block(self) -> float:
        """Seconds of the shortest look that is simulated."""
        return max(self.policy.block, self.policy.look)


def plan_stage(
    step: ReleaseStep,
    named: Mapping[str, ReleaseMetric],
    parts: Mapping[str, float],
    *,
    rate: float,
    errors: float,
    policy: ReleasePolicy,
    alike: StagePlan | None,
) -> StagePlan:
    """The plan of `step` at `rate` requests a second, of which the share `errors` fails today.

    `parts`: alpha of each metric; `alike`: a planned stage of the same weight and longest time, if any: it is simulated
    once.
    """
    share_of = (step.weight or step.mirror) / 100
    slower = min(share_of, 1 - share_of) if step.weight else share_of
    samples_seconds = step.samples / (rate * slower) if slower else math.inf
    powers = []
    if step.weight:
        powers = list(_powers(step, named, parts, rate=rate, errors=errors, policy=policy, alike=alike))
    return StagePlan(
        name=step.label,
        weight=step.weight,
        mirror=step.mirror,
        rate=rate,
        requests=rate * share_of * step.at_most,
        at_least=step.at_least,
        at_most=step.at_most,
        samples=step.samples,
        samples_seconds=samples_seconds,
        seconds=max(step.at_least, samples_seconds),
        metrics=powers,
    )


def _powers(
    step: ReleaseStep,
    named: Mapping[str, ReleaseMetric],
    parts: Mapping[str, float],
    *,
    rate: float,
    errors: float,
    policy: ReleasePolicy,
    alike: StagePlan | None,
) -> Iterator[MetricPower]:
    """The metrics of failures and latency; time-outs are failures, and latency is a rate beyond a bound."""
    simulated = {} if alike is None else {known.metric: known for known in alike.metrics}
    shortest = max(step.at_least, min(step.at_most, step.samples / (rate * min(step.weight, 100 - step.weight) / 100)))
    for name in ("errors", "latency"):
        metric = named[name]
        if metric.margin is None:
            continue
        known = simulated.get(name)
        bad = errors if name == "errors" else 1 - metric.quantile
        power = StepPower(step=step, rate=rate, policy=policy, metric=metric, bad=bad)
        if known is not None and shortest == step.at_most:
            harm = known.harm_longest
        else:
            harm = power.smallest_harm(shortest, parts[name])
        if known is not None:
            yield msgspec.structs.replace(known, harm_shortest=harm)
            continue
        longest = harm
        if shortest < step.at_most:
            longest = power.smallest_harm(step.at_most, parts[name], known=harm)
        yield MetricPower(
            metric=name,
            harm_shortest=harm,
            harm_longest=longest,
            fine_seconds=power.fine_seconds(),
            margin=metric.margin,
        )

"""What a release can decide, and when: said before it begins, by simulating the very tests that decide it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.units import show_duration
from cumulant.flows.ledger.actions import check, verb
from cumulant.flows.release.plan.label_delay import label_delay
from cumulant.flows.release.plan.measured_traffic import MeasuredTraffic, measured_traffic, rate_of
from cumulant.flows.release.plan.plan_texts import advice, instead, late_labels, undecided, undecided_quality, warnings
from cumulant.flows.release.plan.power import StepPower
from cumulant.flows.serving.predictions import FOLDER as PREDICTIONS
from cumulant.release.evidence.metrics import ReleaseMetric, harm_alphas, metrics
from cumulant.release.paired.admission import UNDECLARED_PART, with_margins
from cumulant.release.steps import ReleaseStep
from cumulant.release.wording import rounded
from cumulant.statistics import sequential

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy

#: spread of the difference of two models' Brier losses on one row, where nothing was measured
_DEVIATION = 0.17
#: times of the last step that are tried where its own is too short
_LONGER = (4, 16)


class Power(msgspec.Struct, frozen=True, kw_only=True):
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
    metrics: list[Power]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole release. `undecided`: what cannot be decided in time, in words; `advice`: what to do about it."""

    #: a second, while requests come; a day, breaks included
    requests: float
    #: None: less than a day was observed
    requests_a_day: float | None
    #: from the first request of the last week until now, in seconds; None: the traffic was declared
    observed_seconds: float | None
    source: str
    errors: float
    alpha: float
    stages: list[StagePlan]
    #: until promotion, at the earliest; None: it ends as inconclusive
    seconds: float | None
    #: that come until then, of both arms
    requests_needed: float | None
    undecided: list[str]
    advice: list[str]
    #: mirrored and labelled rows until quality is shown to be within its margin
    quality_pairs: float | None
    quality_seconds: float | None
    #: how long labels take, in seconds; None: it is not known
    label_delay: float | None = None
    #: what is used instead of labels that come too late, in words
    instead: list[str] = []
    #: what may go wrong whatever the traffic, in words
    warnings: list[str] = []


@verb("release.plan")
def plan_release(
    project: Project,
    *,
    principal: Principal,
    requests: str | None = None,
    errors: float = 0.005,
) -> Plan:
    """What a release of this project can decide at declared traffic, else as the last week's prediction log has it.

    Raises:
        UsageError: no traffic is known, or the share of errors is not between 0 and 1.
    """
    check(project.access(), principal, "release.plan", project.name)
    if not 0 < errors < 0.5:
        raise UsageError(
            f"the share of errors {errors:g} is not between 0 and 50%",
            subject="--errors",
            hint="write the share of requests that fail today, such as 0.5%; without any, 0.1% is a fair guess",
        )
    traffic = _traffic(project) if requests is None else MeasuredTraffic.steady(rate_of(requests))
    found = planned(project.policies.release, rate=traffic, errors=errors, label_delay=label_delay(project))
    return msgspec.structs.replace(found, warnings=warnings(project, traffic, found))


def _traffic(project: Project) -> MeasuredTraffic:
    found = measured_traffic(project.state / PREDICTIONS, project.name, datetime.now(UTC))
    if found is None:
        raise UsageError(
            f"fewer than two requests of {project.name} in the last week are logged, which give no rate",
            subject="--requests",
            hint="declare the traffic: --requests 200/s, 30/m, 2000/d",
        )
    return found


def planned(
    policy: ReleasePolicy,
    *,
    rate: float | MeasuredTraffic,
    errors: float,
    label_delay: timedelta | None = None,
) -> Plan:
    """The plan at `rate` requests a second, of which the share `errors` fails today, up to the holdback if any."""
    traffic = rate if isinstance(rate, MeasuredTraffic) else MeasuredTraffic.steady(rate)
    named, found = metrics(policy), list[StagePlan]()
    parts = harm_alphas(_deciding(policy), policy.alpha)
    every = tuple(step for step in policy.steps if step.stage != "holdback")
    for step in every:
        alike = next((one for one in found if (one.weight, one.at_most) == (step.weight, step.at_most)), None)
        rate_of_step = traffic.rate_within(step.at_most)
        found.append(_stage(step, named, parts, rate=rate_of_step, errors=errors, policy=policy, alike=alike))
    pairs, pair_seconds = _quality(
        policy, named["quality"], every, min(traffic.rate_within(step.at_most) for step in every)
    )
    lacks = 0.0
    if named["quality"].required and pairs is not None and policy.holdback is None:
        found, lacks = _waiting(found, pairs)
    # Rows of the past may show quality, too.
    unshown = lacks >= 1 and policy.evaluation is None
    missing, tardy = list(undecided(found, named)), late_labels(label_delay, found)
    if pairs is not None and (text := undecided_quality(pairs, unshown=unshown)) is not None:
        missing.append(text)
    helps = [
        *_longer(every[-1], found[-1], named, traffic=traffic, errors=errors, policy=policy),
        *advice(found, traffic.requests_a_day),
    ]
    late = (
        unshown
        or any(one.samples_seconds > one.at_most for one in found)
        or any(one.fine_seconds is None for one in found[-1].metrics if named[one.metric].required)
    )
    times = [*(one.seconds for one in found[:-1]), _last(found[-1], named)]
    return Plan(
        requests=traffic.rate,
        requests_a_day=traffic.requests_a_day,
        observed_seconds=traffic.observed if math.isfinite(traffic.observed) else None,
        source=traffic.source(),
        errors=errors,
        alpha=policy.alpha,
        stages=found,
        seconds=None if late else sum(times),
        requests_needed=None if late else sum(time * one.rate for time, one in zip(times, found, strict=True)),
        undecided=missing if tardy is None else [*missing, tardy],
        advice=helps if missing else [],
        label_delay=None if label_delay is None else label_delay.total_seconds(),
        instead=instead(policy, label_delay, late=tardy is not None),
        quality_pairs=None if pairs is None or math.isinf(pairs) else pairs,
        quality_seconds=pair_seconds,
    )


def _deciding(policy: ReleasePolicy) -> dict[str, ReleaseMetric]:
    """The metrics as a release shares alpha among them: with those that the comparison on the past gives a margin."""
    found = metrics(with_margins(policy, None))
    if policy.evaluation is None:
        return found
    expected = {name: found[name] for name in ("prediction", "distance") if found[name].margin is None}
    return found | {
        name: msgspec.structs.replace(one, margin=math.inf, part=UNDECLARED_PART) for name, one in expected.items()
    }


def _longer(
    step: ReleaseStep,
    stage: StagePlan,
    named: Mapping[str, ReleaseMetric],
    *,
    traffic: MeasuredTraffic,
    errors: float,
    policy: ReleasePolicy,
) -> Iterator[str]:
    """How long the last step has to be so that a release ends with proof, where its traffic gives too little."""
    short = [one for one in stage.metrics if one.fine_seconds is None and named[one.metric].required]
    if not short:
        return
    for factor in _LONGER:
        wider = msgspec.structs.replace(step, at_most=step.at_most * factor)
        rate = traffic.rate_within(wider.at_most)
        bad = {one.metric: errors if one.metric == "errors" else 1 - named[one.metric].quantile for one in short}
        powers = [
            StepPower(step=wider, rate=rate, policy=policy, metric=named[name], bad=one) for name, one in bad.items()
        ]
        if all(power.fine_seconds() is not None for power in powers):
            longer = show_duration(timedelta(seconds=wider.at_most))
            yield (
                f"give it more time: release.stages.canary.at_most: {longer}, within which a"
                " sound candidate is shown to be within its margins at this traffic"
            )
            return
    yield (
        f"at {rounded(traffic.mean_rate)} requests a second a release rarely ends with proof, however long it takes:"
        " decide by hand (`cumulant release promote`), or widen the margins"
    )


def _stage(
    step: ReleaseStep,
    named: Mapping[str, ReleaseMetric],
    parts: Mapping[str, float],
    *,
    rate: float,
    errors: float,
    policy: ReleasePolicy,
    alike: StagePlan | None,
) -> StagePlan:
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
) -> Iterator[Power]:
    """Time-outs are failures as errors are, so both are simulated once; latency is a rate beyond a bound.

    `alike`: a stage of the same weight and longest time, which is simulated once.
    """
    simulated = {} if alike is None else {one.metric: one for one in alike.metrics}
    for name in ("errors", "latency"):
        metric = named[name]
        if metric.margin is None:
            continue
        bad = errors if name == "errors" else 1 - metric.quantile
        shortest = max(
            step.at_least, min(step.at_most, step.samples / (rate * min(step.weight, 100 - step.weight) / 100))
        )
        power = StepPower(step=step, rate=rate, policy=policy, metric=metric, bad=bad)
        harm = power.smallest_harm(shortest, parts[name])
        if name in simulated:
            yield msgspec.structs.replace(simulated[name], harm_shortest=harm)
            continue
        yield Power(
            metric=name,
            harm_shortest=harm,
            harm_longest=power.smallest_harm(step.at_most, parts[name], known=harm),
            fine_seconds=power.fine_seconds(),
            margin=metric.margin,
        )


def _quality(
    policy: ReleasePolicy, metric: ReleaseMetric, every: tuple[ReleaseStep, ...], rate: float
) -> tuple[float | None, float | None]:
    """Mirrored and labelled rows that quality needs, and how long mirroring takes to give them; labels come later.
    Infinity: no number of them shows it in such blocks.

    A block is as long as is declared, or as it takes until it holds its fewest pairs.
    """
    mirror = max((step.mirror for step in every), default=0.0) / 100
    if metric.margin is None:
        return None, None
    seconds = metric.block or policy.block
    pairs = max(rate * mirror * seconds, float(metric.fewest))
    blocks = sequential.paired_blocks(margin=metric.margin, deviation=_DEVIATION, pairs=pairs)
    if math.isinf(blocks):
        return blocks, None
    needed = math.ceil(blocks) * pairs
    return needed, needed / (rate * mirror) if mirror else None


def _waiting(found: list[StagePlan], pairs: float) -> tuple[list[StagePlan], float]:
    """The stages as long as a required quality needs, and how many pairs lack after them.

    Shadow and the last stage wait for pairs, at most their longest time, and pairs of all stages count.
    """
    stages = list[StagePlan]()
    for stage in found:
        pairs_a_second, seconds = stage.rate * stage.mirror / 100, stage.seconds
        if pairs_a_second and (not stage.weight or len(stages) + 1 == len(found)):
            seconds = max(seconds, min(stage.at_most, pairs / pairs_a_second))
        stages.append(msgspec.structs.replace(stage, seconds=seconds))
        pairs -= seconds * pairs_a_second
    return stages, pairs


def _last(stage: StagePlan, named: Mapping[str, ReleaseMetric]) -> float:
    """The last step ends when everything that a promotion needs is shown."""
    shown = [one.fine_seconds or 0.0 for one in stage.metrics if named[one.metric].required]
    return max([stage.seconds, *shown])

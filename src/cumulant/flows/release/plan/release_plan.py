"""The plan of a release: what it can decide, and when, by simulating the tests that decide it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.units import show_duration
from cumulant.flows.ledger.actions import OWN_MODEL, verb
from cumulant.flows.release.plan.label_delay import find_label_delay
from cumulant.flows.release.plan.measured_traffic import MeasuredTraffic, measure_traffic, parse_rate
from cumulant.flows.release.plan.plan_texts import (
    advice_texts,
    late_labels_text,
    substitute_texts,
    undecided_quality_text,
    undecided_texts,
    warning_texts,
)
from cumulant.flows.release.plan.power import StagePlan, StepPower, plan_stage
from cumulant.release.admission import UNDECLARED_PART, with_margins
from cumulant.release.evidence.metrics import ReleaseMetric, metrics, split_alpha
from cumulant.release.steps import ReleaseStep
from cumulant.release.wording import rounded
from cumulant.statistics.sequential.power import paired_blocks

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.policy import ReleasePolicy

#: spread of the difference of two models' Brier losses on one row, where nothing was measured
_DEVIATION = 0.17
#: times of the last step that are tried where its own is too short
_LONGER = (4, 16)


class ReleasePlan(msgspec.Struct, frozen=True, kw_only=True):
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


@verb("release.plan", of=OWN_MODEL)
def plan_release(
    project: Project,
    *,
    principal: Principal,
    requests: str | None = None,
    errors: float = 0.005,
) -> ReleasePlan:
    """What a release of this project can decide at declared traffic, else as the last week's prediction log has it.

    Raises:
        UsageError: no traffic is known, or the share of errors is not between 0 and 1.
    """
    if not 0 < errors < 0.5:
        raise UsageError(
            f"the share of errors {errors:g} is not between 0 and 50%",
            subject="--errors",
            hint="write the share of requests that fail today, such as 0.5%; without any, 0.1% is a fair guess",
        )
    traffic = _measured_traffic(project) if requests is None else MeasuredTraffic.steady(parse_rate(requests))
    plan = build_plan(project.policies.release, rate=traffic, errors=errors, label_delay=find_label_delay(project))
    return msgspec.structs.replace(plan, warnings=warning_texts(project, traffic, plan.stages, plan.seconds))


def _measured_traffic(project: Project) -> MeasuredTraffic:
    traffic = measure_traffic(project.log(), project.name, datetime.now(UTC))
    if traffic is None:
        raise UsageError(
            f"fewer than two requests of {project.name} in the last week are logged, which give no rate",
            subject="--requests",
            hint="declare the traffic: --requests 200/s, 30/m, 2000/d",
        )
    return traffic


def build_plan(
    policy: ReleasePolicy,
    *,
    rate: float | MeasuredTraffic,
    errors: float,
    label_delay: timedelta | None = None,
) -> ReleasePlan:
    """The plan at `rate` requests a second, of which the share `errors` fails today, up to the holdback if any."""
    traffic = rate if isinstance(rate, MeasuredTraffic) else MeasuredTraffic.steady(rate)
    named, stages = metrics(policy), list[StagePlan]()
    parts = split_alpha(_deciding_metrics(policy), policy.alpha)
    every = tuple(step for step in policy.steps if step.stage != "holdback")
    for step in every:
        alike = next((stage for stage in stages if (stage.weight, stage.at_most) == (step.weight, step.at_most)), None)
        rate_of_step = traffic.rate_within(step.at_most)
        stages.append(plan_stage(step, named, parts, rate=rate_of_step, errors=errors, policy=policy, alike=alike))
    pairs, pair_seconds = _quality(
        policy, named["quality"], every, min(traffic.rate_within(step.at_most) for step in every)
    )
    lacks = 0.0
    if named["quality"].required and pairs is not None and policy.holdback is None:
        stages, lacks = _extend_for_quality(stages, pairs)
    # Rows of the past may show quality, too.
    unshown = lacks >= 1 and policy.evaluation is None
    missing = list(undecided_texts(stages, named))
    if pairs is not None and (text := undecided_quality_text(pairs, unshown=unshown)) is not None:
        missing.append(text)
    helps = [
        *_longer_step_advice(every[-1], stages[-1], named, traffic=traffic, errors=errors, policy=policy),
        *advice_texts(stages, traffic.requests_a_day),
    ]
    late = (
        unshown
        or any(stage.samples_seconds > stage.at_most for stage in stages)
        or any(stage.fine_seconds is None for stage in stages[-1].metrics if named[stage.metric].required)
    )
    times = [*(stage.seconds for stage in stages[:-1]), _last_stage_seconds(stages[-1], named)]
    tardy = late_labels_text(label_delay, stages, None if late else sum(times))
    return ReleasePlan(
        requests=traffic.rate,
        requests_a_day=traffic.requests_a_day,
        observed_seconds=traffic.observed if math.isfinite(traffic.observed) else None,
        source=traffic.source(),
        errors=errors,
        alpha=policy.alpha,
        stages=stages,
        seconds=None if late else sum(times),
        requests_needed=None if late else sum(time * stage.rate for time, stage in zip(times, stages, strict=True)),
        undecided=missing if tardy is None else [*missing, tardy],
        advice=helps if missing else [],
        label_delay=None if label_delay is None else label_delay.total_seconds(),
        instead=substitute_texts(policy, label_delay, late=tardy is not None),
        quality_pairs=None if pairs is None or math.isinf(pairs) else pairs,
        quality_seconds=pair_seconds,
    )


def _deciding_metrics(policy: ReleasePolicy) -> dict[str, ReleaseMetric]:
    """The metrics as a release shares alpha among them: with those that the comparison on the past gives a margin."""
    declared = metrics(with_margins(policy, None))
    if policy.evaluation is None:
        return declared
    expected = {name: declared[name] for name in ("prediction", "distance") if declared[name].margin is None}
    return declared | {
        name: msgspec.structs.replace(metric, margin=math.inf, part=UNDECLARED_PART)
        for name, metric in expected.items()
    }


def _longer_step_advice(
    step: ReleaseStep,
    stage: StagePlan,
    named: Mapping[str, ReleaseMetric],
    *,
    traffic: MeasuredTraffic,
    errors: float,
    policy: ReleasePolicy,
) -> Iterator[str]:
    """How long the last step has to be so that a release ends with proof, where its traffic gives too little."""
    short = [power for power in stage.metrics if power.fine_seconds is None and named[power.metric].required]
    if not short:
        return
    for factor in _LONGER:
        wider = msgspec.structs.replace(step, at_most=step.at_most * factor)
        rate = traffic.rate_within(wider.at_most)
        bad = {
            power.metric: errors if power.metric == "errors" else 1 - named[power.metric].quantile for power in short
        }
        powers = [
            StepPower(step=wider, rate=rate, policy=policy, metric=named[name], bad=share)
            for name, share in bad.items()
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


def _quality(
    policy: ReleasePolicy, metric: ReleaseMetric, every: tuple[ReleaseStep, ...], rate: float
) -> tuple[float | None, float | None]:
    """Mirrored, labelled rows that quality needs (infinity: no number suffices), and seconds until mirrored."""
    mirror = max((step.mirror for step in every), default=0.0) / 100
    if metric.margin is None:
        return None, None
    seconds = metric.block or policy.block
    pairs = max(rate * mirror * seconds, float(metric.fewest))
    blocks = paired_blocks(margin=metric.margin, deviation=_DEVIATION, pairs=pairs)
    if math.isinf(blocks):
        return blocks, None
    needed = math.ceil(blocks) * pairs
    return needed, needed / (rate * mirror) if mirror else None


def _extend_for_quality(planned: list[StagePlan], pairs: float) -> tuple[list[StagePlan], float]:
    """The stages as long as a required quality needs, and how many pairs lack after them; pairs of all stages count."""
    stages = list[StagePlan]()
    for stage in planned:
        pairs_a_second, seconds = stage.rate * stage.mirror / 100, stage.seconds
        if pairs_a_second and (not stage.weight or len(stages) + 1 == len(planned)):
            seconds = max(seconds, min(stage.at_most, pairs / pairs_a_second))
        stages.append(msgspec.structs.replace(stage, seconds=seconds))
        pairs -= seconds * pairs_a_second
    return stages, pairs


def _last_stage_seconds(stage: StagePlan, named: Mapping[str, ReleaseMetric]) -> float:
    """The last step ends when everything that a promotion needs is shown."""
    shown = [power.fine_seconds or 0.0 for power in stage.metrics if named[power.metric].required]
    return max([stage.seconds, *shown])

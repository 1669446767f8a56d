"""The section `release` of the project file as a policy: every duration, share and margin is parsed here, once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from cumulant.core.errors import CumulantError, UsageError, did_you_mean
from cumulant.core.units import duration, share
from cumulant.release.policy import (
    KINDS,
    ApprovalPolicy,
    CeilingPolicy,
    MetricPolicy,
    PairedPolicy,
    ReleasePolicy,
    check_approval_stage,
)
from cumulant.release.spec import ApprovalSpec, CeilingSpec, HoldbackSpec, MetricSpec, PairedSpec, ReleaseSpec
from cumulant.release.steps import ReleaseStep, StageName

#: an error rate that is no longer one
_MOST_ALPHA = 0.5
#: metrics that are shares of requests or pairs, so that no difference exceeds 1
_SHARES = frozenset({"errors", "timeouts", "disagreement"})


def release_policy(spec: ReleaseSpec) -> ReleasePolicy:
    """The section as numbers with units.

    Raises:
        UsageError: no release could go by it; `subject` is the path of the value.
    """
    steps, metrics, alpha = steps_of(spec), metric_policies(spec.metrics), _alpha(spec)
    return ReleasePolicy(
        steps=steps,
        approval=_approval(spec),
        key=spec.key,
        alpha=alpha,
        metrics=metrics,
        evaluation=None if spec.evaluation is None else paired_policy(spec.evaluation),
        largest_gain=share((spec.evaluation or PairedSpec()).gain),
        ceilings=ceiling_policy(spec.ceilings),
        authority=spec.authority,
        warm_up=_seconds(spec.warm_up),
        newer=spec.newer,
        keep_warm=duration(spec.keep_warm),
        look=_seconds(spec.look),
        block=_seconds(spec.block),
        slo=spec.slo,
    )


def release_policy_errors(spec: ReleaseSpec) -> Iterator[CumulantError]:
    """Why no release could go by the section: the first error of its steps, of its metrics and of alpha."""
    for check in (steps_of, lambda spec: metric_policies(spec.metrics), _alpha):
        try:
            check(spec)
        except UsageError as error:
            yield error


def paired_policy(spec: PairedSpec) -> PairedPolicy:
    return PairedPolicy(span=duration(spec.days), rows=spec.rows)


def ceiling_policy(spec: CeilingSpec) -> CeilingPolicy:
    return CeilingPolicy(
        errors=share(spec.errors),
        requests=spec.requests,
        not_ready=_seconds(spec.not_ready),
        restarts=spec.restarts,
    )


def _approval(spec: ReleaseSpec) -> ApprovalPolicy | None:
    if not isinstance(spec.approval, ApprovalSpec):
        return None
    return ApprovalPolicy(before=spec.approval.before, by=tuple(spec.approval.by), excluded=spec.approval.excluded)


def _alpha(spec: ReleaseSpec) -> float:
    """Of 0 nothing is ever shown, and of much everything is: a candidate would be promoted by the first request."""
    alpha = share(spec.alpha)
    if not 0 < alpha < _MOST_ALPHA:
        raise UsageError(
            f"release.alpha is {spec.alpha}, and no evidence can be counted by that",
            subject="release.alpha",
            hint=f"write a share above 0% and below {_MOST_ALPHA:.0%}, such as 5%",
        )
    return alpha


def steps_of(spec: ReleaseSpec) -> tuple[ReleaseStep, ...]:
    """All steps in order; after the last one the candidate is promoted.

    Raises:
        UsageError: the shares of the canary do not grow, nothing is left to compare with, or an approval
            before the canary has no stage to wait in.
    """
    if not duration(spec.look):
        raise UsageError(
            f"release.look is {spec.look}, and nothing comes between two looks",
            subject="release.look",
            hint="write how long lies between two looks, such as 10s",
        )
    steps = tuple(_steps(spec))
    check_approval_stage(steps, _approval(spec))
    return steps


def _steps(spec: ReleaseSpec) -> Iterator[ReleaseStep]:
    stages = spec.stages
    if stages.shadow is not None:
        shadow = stages.shadow
        if shadow.samples and not _percent(shadow.mirror):
            raise UsageError(
                f"release.stages.shadow waits for {shadow.samples} mirrored requests, and mirrors none",
                subject="release.stages.shadow.mirror",
                hint="write a share above 0%, or `shadow: null`",
            )
        yield _step("shadow", shadow.at_least, shadow.at_most, shadow.samples, mirror=_percent(shadow.mirror))
    weights = [_percent(weight) for weight in stages.canary.weights]
    _check(weights)
    if stages.ab is not None:
        yield _step(
            "ab",
            stages.ab.at_least,
            stages.ab.at_most,
            stages.ab.samples,
            weight=_split(stages.ab.weight),
            mirror=_percent(stages.ab.mirror),
        )
    canary = stages.canary
    for weight in weights:
        least = canary.soak if weight == weights[-1] else canary.at_least
        yield _step("canary", least, canary.at_most, canary.samples, weight=weight, mirror=_percent(canary.mirror))

    if (holdback := _holdback(spec)) is not None:
        weight = 100 - _percent(holdback.share)
        if not weights[-1] <= weight < 100:
            raise UsageError(
                f"release.holdback keeps {holdback.share} on the champion, after {100 - weights[-1]:g}% in the canary",
                subject="release.holdback.share",
                hint="write a share above 0% and at most what the last step of the canary leaves to the champion",
            )
        yield _step("holdback", "0s", holdback.at_most, 0, weight=weight, mirror=_percent(holdback.mirror))


def _holdback(spec: ReleaseSpec) -> HoldbackSpec | None:
    """The holdback as it is declared; None where there is none."""
    if isinstance(spec.holdback, HoldbackSpec):
        return spec.holdback
    return HoldbackSpec() if spec.holdback == "until_labels" else None


def _step(
    stage: StageName, at_least: str, at_most: str, samples: int, *, weight: float = 0.0, mirror: float = 0.0
) -> ReleaseStep:
    least, most = _seconds(at_least), _seconds(at_most)
    if most < least:
        raise UsageError(
            f"the longest time of release.stages.{stage} ({at_most}) is shorter than its shortest ({at_least})",
            subject=f"release.stages.{stage}.at_most",
            hint="raise at_most or lower at_least",
        )
    return ReleaseStep(stage=stage, weight=weight, mirror=mirror, at_least=least, at_most=most, samples=samples)


def _percent(text: str | float) -> float:
    return round(share(text) * 100, 6)


def _split(text: str | float) -> float:
    weight = _percent(text)
    if not 0 < weight < 100:
        raise UsageError(
            f"release.stages.ab has a weight of {weight:g}%, which leaves one of the arms without requests to compare",
            subject="release.stages.ab.weight",
            hint="write a share above 0% and below 100%, such as 10%, or `ab: null` to leave the stage out",
        )
    return weight


def _check(weights: list[float]) -> None:
    if any(later <= earlier for earlier, later in itertools.pairwise(weights)) or weights[0] <= 0:
        raise UsageError(
            f"the weights of release.stages.canary do not grow: {', '.join(f'{weight:g}%' for weight in weights)}",
            subject="release.stages.canary.weights",
            hint="write growing shares, such as [10%, 50%, 95%]",
        )
    if weights[-1] >= 100:
        raise UsageError(
            "release.stages.canary.weights ends at 100%, where nothing is left on the champion to compare with",
            subject="release.stages.canary.weights",
            hint="end at 95%; after that step the candidate gets all traffic by itself",
        )


def _seconds(text: str) -> float:
    return duration(text).total_seconds()


def metric_policies(declared: Mapping[str, MetricSpec]) -> dict[str, MetricPolicy]:
    """`release.metrics` as numbers.

    Raises:
        UsageError: a name that is no metric has no query or function, or a value does not fit; `subject` is its path.
    """
    return {name: _metric_policy(name, spec) for name, spec in declared.items()}


def _metric_policy(name: str, spec: MetricSpec) -> MetricPolicy:
    if name in KINDS:
        _check_block(name, spec)
    else:
        _check_own(name, spec)
    margin = _margin(name, spec)
    if name in _SHARES and margin is not None and margin > 1:
        path = f"release.metrics.{name}.margin"
        raise UsageError(f"{path}: {spec.margin} is more than all requests", subject=path, hint=_unit(name))
    return MetricPolicy(
        margin=margin,
        part=spec.share,
        required=spec.required,
        quantile=spec.quantile,
        prometheus=spec.prometheus,
        call=spec.call,
        bounds=spec.bounds,
        better=spec.better,
        block=None if spec.block is None else duration(spec.block).total_seconds(),
    )


def _margin(name: str, spec: MetricSpec) -> float | None:
    """The declared margin as a number: text is a share; None where none is declared.

    Raises:
        UsageError: it is no share, or not between 0 and the greatest difference that the metric can have.
    """
    if spec.margin is None:
        return None
    path = f"release.metrics.{name}.margin"
    try:
        value = share(spec.margin) if isinstance(spec.margin, str) else float(spec.margin)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", subject=path, hint=_unit(name)) from None
    if not 0 < value < math.inf:
        raise UsageError(
            f"the margin of release.metrics.{name} is {spec.margin}, and nothing can be shown to be within that",
            subject=path,
            hint="write how much worse is accepted, above 0: 0.5%, 0.005",
        )
    if spec.bounds is not None and name not in KINDS and value >= (scale := spec.bounds[1] - spec.bounds[0]):
        raise UsageError(
            f"the margin {value:g} of release.metrics.{name} is not between 0 and the range {scale:g} of its values",
            subject=path,
            hint="write how much worse is accepted, in the metric's own unit",
        )
    return value


def _check_own(name: str, spec: MetricSpec) -> None:
    """Raises UsageError where nothing says how a metric of your own is measured, or between which values it lies."""
    if (spec.prometheus is None) == (spec.call is None):
        raise UsageError(
            f'release.metrics.{name} does not say how it is measured: give one of "prometheus" and "call"',
            subject=f"release.metrics.{name}",
            hint=did_you_mean(name, KINDS) or f"metrics that are measured by themselves: {', '.join(KINDS)}",
        )
    if spec.bounds is None or spec.bounds[0] >= spec.bounds[1]:
        raise UsageError(
            f"release.metrics.{name} needs the least and greatest value that it can have",
            subject=f"release.metrics.{name}.bounds",
            hint="write bounds: [0, 1]; evidence that holds at every look is counted in units of that range",
        )


def _check_block(name: str, spec: MetricSpec) -> None:
    """Raises UsageError where what the gateway counts has a block of its own."""
    if spec.block is not None and KINDS[name] != "pairs":
        raise UsageError(
            f"release.metrics.{name} has no block of its own: what the gateway counts goes by release.block",
            subject=f"release.metrics.{name}.block",
            hint="write release: {block: DURATION}",
        )


def _unit(name: str) -> str:
    if name == "latency":
        return "write how much slower than the champion is accepted, as a share of its latency: 25%, or a number: 1.5"
    if name in _SHARES:
        return "write how many more requests may be affected, as a share of all: 0.5%, 0.005"
    return "write how much worse is accepted: a number in the metric's own unit, such as 0.02"

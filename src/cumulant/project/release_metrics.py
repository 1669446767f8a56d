"""What `release.metrics` declares: checked and parsed without an engine, whenever a project file is read."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.units import duration, share
from cumulant.release.policy import KINDS, MetricPolicy
from cumulant.release.spec import MetricSpec

#: metrics that are shares of requests or pairs, so that no difference exceeds 1
_SHARES = frozenset({"errors", "timeouts", "disagreement"})


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

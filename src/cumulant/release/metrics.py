"""Which metrics a release is judged by: the declared ones over the defaults, and each one's part of alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.units import share
from cumulant.release.spec import MetricSpec, ReleaseSpec
from cumulant.statistics import sequential

Kind = Literal["failures", "latency", "pairs", "own"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric with everything worked out. Without a `margin` it is told and decides nothing."""

    name: str
    kind: Kind
    unit: str
    margin: float | None
    required: bool
    part: float = 1.0
    quantile: float = 0.95
    #: the greatest difference between the arms, of a metric of your own
    scale: float = 1.0
    #: pairs in a block of evidence, at least, and how long it is where that is declared of this metric
    fewest: int = 1
    block: str | None = None
    #: a change in either direction is one for the worse
    two_sided: bool = False


_DEFAULTS = {
    "errors": Metric(name="errors", kind="failures", unit="%", margin=0.005, required=True, part=2.0),
    "timeouts": Metric(name="timeouts", kind="failures", unit="%", margin=0.005, required=True, part=0.5),
    "latency": Metric(name="latency", kind="latency", unit="ms", margin=0.25, required=True),
    "disagreement": Metric(
        name="disagreement", kind="pairs", unit="%", margin=None, required=False, fewest=sequential.FEWEST_PAIRS
    ),
    "prediction": Metric(
        name="prediction",
        kind="pairs",
        unit="",
        margin=None,
        required=False,
        fewest=sequential.FEWEST_PAIRS,
        two_sided=True,
    ),
    "distance": Metric(
        name="distance", kind="pairs", unit="", margin=None, required=False, fewest=sequential.FEWEST_PAIRS
    ),
    "quality": Metric(
        name="quality", kind="pairs", unit="", margin=0.005, required=False, fewest=sequential.FEWEST_PAIRS
    ),
}
#: disagreements that a block at the margin would hold, at least: fewer are too skewed a number
_DISAGREEING = 5
#: metrics that stand for quality while no label shows it
STAND_INS = frozenset({"disagreement", "prediction", "distance"})
#: part of alpha that the quick checks of a release share (`pulse`)
QUICK_PART = 0.1


def metrics(spec: ReleaseSpec) -> dict[str, Metric]:
    """All metrics of a release by name, the defaults first.

    Raises:
        UsageError: a name that is no metric says nothing of how it is measured, or a value does not fit.
    """
    found = {name: _changed(default, spec.metrics.get(name)) for name, default in _DEFAULTS.items()}
    for name, declared in spec.metrics.items():
        if name not in _DEFAULTS:
            found[name] = _own(name, declared)
    return found


def harm_bars(found: dict[str, Metric], alpha: float) -> dict[str, float]:
    """By metric that decides: the log evidence from which it rolls the candidate back."""
    return {name: -math.log(part) for name, part in harm_alphas(found, alpha).items()}


def harm_alphas(found: Mapping[str, Metric], alpha: float) -> dict[str, float]:
    """By metric that decides: its part of what `alpha` leaves beside the quick checks."""
    parts = {one.name: one.part for one in found.values() if one.margin is not None}
    return sequential.split(parts, alpha * (1 - QUICK_PART))


def _changed(default: Metric, declared: MetricSpec | None) -> Metric:
    if declared is None:
        return default
    margin = default.margin if declared.margin is None else _number(default.name, declared.margin)
    if declared.block is not None and default.kind != "pairs":
        raise UsageError(
            f"release.metrics.{default.name} has no block of its own: what the gateway counts goes by release.block",
            subject=f"release.metrics.{default.name}.block",
            hint="write release: {block: DURATION}",
        )
    fewest = default.fewest
    if default.name == "disagreement" and margin is not None:
        fewest = max(fewest, math.ceil(_DISAGREEING / margin))
    return msgspec.structs.replace(
        default,
        fewest=fewest,
        block=declared.block,
        margin=margin,
        required=default.required if declared.required is None else declared.required,
        part=default.part if declared.share is None else declared.share,
        quantile=declared.quantile or default.quantile,
    )


def _own(name: str, declared: MetricSpec) -> Metric:
    if (declared.prometheus is None) == (declared.call is None):
        raise UsageError(
            f'release.metrics.{name} does not say how it is measured: give one of "prometheus" and "call"',
            subject=f"release.metrics.{name}",
            hint=did_you_mean(name, _DEFAULTS) or f"metrics that are measured by themselves: {', '.join(_DEFAULTS)}",
        )
    if declared.bounds is None or declared.bounds[0] >= declared.bounds[1]:
        raise UsageError(
            f"release.metrics.{name} needs the least and greatest value that it can have",
            subject=f"release.metrics.{name}.bounds",
            hint="write bounds: [0, 1]; evidence that holds at every look is counted in units of that range",
        )
    scale = declared.bounds[1] - declared.bounds[0]
    margin = None if declared.margin is None else _number(name, declared.margin)
    if margin is not None and not 0 < margin < scale:
        raise UsageError(
            f"the margin {margin:g} of release.metrics.{name} is not between 0 and the range {scale:g} of its values",
            subject=f"release.metrics.{name}.margin",
            hint="write how much worse is accepted, in the metric's own unit",
        )
    required = margin is not None if declared.required is None else declared.required
    return Metric(
        name=name, kind="own", unit="", margin=margin, required=required, part=declared.share or 1.0, scale=scale,
        block=declared.block,
    )  # fmt: skip


def _number(name: str, margin: float | str) -> float:
    value = share(margin) if isinstance(margin, str) else float(margin)
    if not value > 0:
        raise UsageError(
            f"the margin of release.metrics.{name} is {margin}, and nothing can be shown to be within that",
            subject=f"release.metrics.{name}.margin",
            hint="write how much worse is accepted, above 0: 0.5%, 0.005",
        )
    return value

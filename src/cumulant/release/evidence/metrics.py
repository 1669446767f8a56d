"""Which metrics a release is judged by: the declared ones over the defaults, and each one's part of alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from cumulant.release.policy import KINDS, Kind, MetricPolicy, ReleasePolicy
from cumulant.statistics.sequential.symmetric import FEWEST_PAIRS


class ReleaseMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric with its defaults filled in. Without a `margin` it is reported and decides nothing."""

    name: str
    kind: Kind
    unit: str
    margin: float | None
    required: bool
    part: float = 1.0
    quantile: float = 0.95
    #: the greatest difference between the arms, of a metric of your own
    scale: float = 1.0
    #: pairs in a block of evidence, at least, and its seconds where they are declared of this metric
    fewest: int = 1
    block: float | None = None
    #: a change in either direction is one for the worse
    two_sided: bool = False


#: in losses of probabilities, whose unit is known
QUALITY_MARGIN = 0.005
_DEFAULTS = {
    "errors": ReleaseMetric(name="errors", kind=KINDS["errors"], unit="%", margin=0.005, required=True, part=2.0),
    "timeouts": ReleaseMetric(name="timeouts", kind=KINDS["timeouts"], unit="%", margin=0.005, required=True, part=0.5),
    "latency": ReleaseMetric(name="latency", kind=KINDS["latency"], unit="ms", margin=0.25, required=True),
    "disagreement": ReleaseMetric(
        name="disagreement",
        kind=KINDS["disagreement"],
        unit="%",
        margin=None,
        required=False,
        fewest=FEWEST_PAIRS,
    ),
    "prediction": ReleaseMetric(
        name="prediction",
        kind=KINDS["prediction"],
        unit="",
        margin=None,
        required=False,
        fewest=FEWEST_PAIRS,
        two_sided=True,
    ),
    "distance": ReleaseMetric(
        name="distance", kind=KINDS["distance"], unit="", margin=None, required=False, fewest=FEWEST_PAIRS
    ),
    "quality": ReleaseMetric(
        name="quality",
        kind=KINDS["quality"],
        unit="",
        margin=QUALITY_MARGIN,
        required=False,
        fewest=FEWEST_PAIRS,
    ),
}
#: disagreements that a block at the margin would hold, at least: fewer are too skewed a number
_DISAGREEING = 5
#: metrics that stand for quality while no label shows it
STAND_INS = frozenset({"disagreement", "prediction", "distance"})
#: part of alpha that the quick checks of a release share (`health`)
QUICK_PART = 0.1


def metrics(policy: ReleasePolicy) -> dict[str, ReleaseMetric]:
    """All metrics of a release by name, the defaults first."""
    defaults = {name: _changed(default, policy.metrics.get(name)) for name, default in _DEFAULTS.items()}
    return defaults | {name: _own(name, declared) for name, declared in policy.metrics.items() if name not in _DEFAULTS}


def split_alpha(metrics: Mapping[str, ReleaseMetric], alpha: float) -> dict[str, float]:
    """By metric that decides: its part of what `alpha` leaves beside the quick checks.

    "No metric is worse" is then rejected wrongly with this probability at most, whichever test errs (union bound).
    Promotion needs every non-inferiority, so each of those is tested at the whole alpha: promoting a candidate that is
    beyond a margin needs that one test to err (intersection-union test, Berger 1982, doi:10.2307/2684003).
    """
    parts = {metric.name: metric.part for metric in metrics.values() if metric.margin is not None}
    whole = math.fsum(parts.values())
    return {name: alpha * (1 - QUICK_PART) * part / whole for name, part in parts.items()}


def _changed(default: ReleaseMetric, declared: MetricPolicy | None) -> ReleaseMetric:
    if declared is None:
        return default
    margin = default.margin if declared.margin is None else declared.margin
    fewest = default.fewest
    if default.name == "disagreement" and margin is not None:
        fewest = max(fewest, math.ceil(_DISAGREEING / margin))
    return msgspec.structs.replace(
        default,
        fewest=fewest,
        block=declared.block,
        margin=margin,
        required=default.required if declared.required is None else declared.required,
        part=default.part if declared.part is None else declared.part,
        quantile=declared.quantile or default.quantile,
    )


def _own(name: str, declared: MetricPolicy) -> ReleaseMetric:
    margin, (low, high) = declared.margin, declared.bounds or (0.0, 1.0)
    return ReleaseMetric(
        name=name,
        kind="own",
        unit="",
        margin=margin,
        required=margin is not None if declared.required is None else declared.required,
        part=declared.part or 1.0,
        scale=high - low,
        block=declared.block,
    )

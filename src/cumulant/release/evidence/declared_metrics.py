"""What `release.metrics` declares, checked without an engine: a project file is checked by it whenever it is read."""

from __future__ import annotations

import math
from typing import Literal

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.units import share
from cumulant.release.spec import MetricSpec, ReleaseSpec

Kind = Literal["failures", "latency", "pairs", "own"]

#: the metrics that are measured without being declared
KINDS: dict[str, Kind] = {
    "errors": "failures",
    "timeouts": "failures",
    "latency": "latency",
    "disagreement": "pairs",
    "prediction": "pairs",
    "distance": "pairs",
    "quality": "pairs",
}
#: metrics that are shares of requests or pairs, so that no difference exceeds 1
_SHARES = frozenset({"errors", "timeouts", "disagreement"})


def check_metrics(spec: ReleaseSpec) -> None:
    """Refuse what no release could go by.

    Raises:
        UsageError: a name that is no metric has no query or function, or a value does not fit; `subject` is its path.
    """
    for name, declared in spec.metrics.items():
        if name in KINDS:
            check_block(name, declared)
        else:
            scale_of(name, declared)
        _check_share(name, declared, margin_of(name, declared))


def margin_of(name: str, declared: MetricSpec) -> float | None:
    """The declared margin as a number: text is a share; None where none is declared.

    Raises:
        UsageError: it is no share, or not between 0 and the greatest difference that the metric can have.
    """
    if declared.margin is None:
        return None
    path = f"release.metrics.{name}.margin"
    try:
        value = share(declared.margin) if isinstance(declared.margin, str) else float(declared.margin)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", subject=path, hint=_unit(name)) from None
    if not 0 < value < math.inf:
        raise UsageError(
            f"the margin of release.metrics.{name} is {declared.margin}, and nothing can be shown to be within that",
            subject=path,
            hint="write how much worse is accepted, above 0: 0.5%, 0.005",
        )
    if name not in KINDS and value >= (scale := scale_of(name, declared)):
        raise UsageError(
            f"the margin {value:g} of release.metrics.{name} is not between 0 and the range {scale:g} of its values",
            subject=path,
            hint="write how much worse is accepted, in the metric's own unit",
        )
    return value


def scale_of(name: str, declared: MetricSpec) -> float:
    """The greatest difference between the arms, of a metric of your own.

    Raises:
        UsageError: nothing says how it is measured, or between which values it lies.
    """
    if (declared.prometheus is None) == (declared.call is None):
        raise UsageError(
            f'release.metrics.{name} does not say how it is measured: give one of "prometheus" and "call"',
            subject=f"release.metrics.{name}",
            hint=did_you_mean(name, KINDS) or f"metrics that are measured by themselves: {', '.join(KINDS)}",
        )
    if declared.bounds is None or declared.bounds[0] >= declared.bounds[1]:
        raise UsageError(
            f"release.metrics.{name} needs the least and greatest value that it can have",
            subject=f"release.metrics.{name}.bounds",
            hint="write bounds: [0, 1]; evidence that holds at every look is counted in units of that range",
        )
    return declared.bounds[1] - declared.bounds[0]


def check_block(name: str, declared: MetricSpec) -> None:
    """Raises UsageError where what the gateway counts has a block of its own."""
    if declared.block is not None and KINDS[name] != "pairs":
        raise UsageError(
            f"release.metrics.{name} has no block of its own: what the gateway counts goes by release.block",
            subject=f"release.metrics.{name}.block",
            hint="write release: {block: DURATION}",
        )


def _check_share(name: str, declared: MetricSpec, margin: float | None) -> None:
    if name in _SHARES and margin is not None and margin > 1:
        path = f"release.metrics.{name}.margin"
        raise UsageError(f"{path}: {declared.margin} is more than all requests", subject=path, hint=_unit(name))


def _unit(name: str) -> str:
    if name == "latency":
        return "write how much slower than the champion is accepted, as a share of its latency: 25%, or a number: 1.5"
    if name in _SHARES:
        return "write how many more requests may be affected, as a share of all: 0.5%, 0.005"
    return "write how much worse is accepted: a number in the metric's own unit, such as 0.02"

"""The section `serving.slo` of the project file as objectives."""

from __future__ import annotations

from cumulant.core.errors import UsageError
from cumulant.core.units import duration, share
from cumulant.monitoring.objectives import Objective
from cumulant.serving.spec import SloSpec

#: bounds of durations, in milliseconds, that both the gateway and the servers count
BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500)
#: 99.9 / 100 is 0.9990000000000001
_DIGITS = 12


def objectives(spec: SloSpec | None) -> tuple[Objective, ...]:
    """The declared objectives.

    Raises:
        UsageError: a value means nothing; `subject` is its path.
    """
    if spec is None:
        return ()
    window = duration(spec.window)
    if not window:
        raise UsageError("serving.slo.window may not be 0", subject="serving.slo.window", hint="write 30d")
    declared = [
        Objective(
            sli="availability",
            target=_target("serving.slo.objective", spec.objective),
            window=window,
            fewest=spec.fewest,
        )
    ]
    if spec.latency is not None:
        within = duration(spec.latency.within)
        if within.total_seconds() * 1000 not in BOUNDS:
            listed = ", ".join(f"{bound}ms" for bound in BOUNDS)
            raise UsageError(
                f'serving.slo.latency.within: "{spec.latency.within}" is no bound of the metrics',
                subject="serving.slo.latency.within",
                hint=f"write one of {listed}",
            )
        target = _target("serving.slo.latency.objective", spec.latency.objective)
        declared.append(Objective(sli="latency", target=target, window=window, fewest=spec.fewest, within=within))
    return tuple(declared)


def _target(path: str, declared: str | float) -> float:
    target = round(share(declared), _DIGITS)
    if not 0 < target < 1:
        raise UsageError(f"{path} is above 0% and below 100%", subject=path, hint="write 99.9%")
    return target

"""The sections `training` and `evaluation` as policies: durations, shares, counts and moments are parsed here, once."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.units import Rate, count, duration, moment, rate, share
from cumulant.training.policy import EvaluationPolicy, ThresholdPolicy, TrainingPolicy
from cumulant.training.spec import EvaluationSpec, Threshold, TrainingSpec

#: of a capacity
_PERIODS = ("hour", "day", "week")


def training_policy(spec: TrainingSpec) -> TrainingPolicy:
    """The section `training` as numbers with units.

    Raises:
        UsageError: a value is not written in its form.
    """
    parsed = {
        "since": None if spec.since is None else moment(spec.since),
        "rows": None if spec.rows is None else count(spec.rows),
        "half_life": None if spec.half_life is None else duration(spec.half_life),
        "threshold": threshold_policy(spec.threshold) if isinstance(spec.threshold, Threshold) else spec.threshold,
        "time": None if spec.time is None else duration(spec.time),
    }
    return TrainingPolicy(**(msgspec.structs.asdict(spec) | parsed))


def threshold_policy(spec: Threshold) -> ThresholdPolicy:
    """Raises UsageError where a capacity, a rate or a share is not written in its form."""
    return ThresholdPolicy(
        alerts=None if spec.alerts is None else _capacity(spec.alerts),
        rate=None if spec.rate is None else share(spec.rate),
        source_share=None if spec.source_share is None else _source_share(spec.source_share),
    )


def evaluation_policy(spec: EvaluationSpec) -> EvaluationPolicy:
    """The section `evaluation` as numbers with units. Raises UsageError for a test of nothing, or of all rows."""
    return EvaluationPolicy(**(msgspec.structs.asdict(spec) | {"test": parse_test(spec.test)}))


def parse_test(text: str | float) -> timedelta | float:
    """The part that is set aside: a span of time, or a share of the rows.

    Raises:
        UsageError: it is neither, or a share of 0 or 100%.
    """
    if isinstance(text, str) and not text.endswith("%"):
        try:
            float(text)
        except ValueError:
            return duration(text)
    part = share(text)
    if not 0 < part < 1:
        raise UsageError(f"a test of {text} leaves nothing to train or to judge", hint="write 20% or 60d")
    return part


def _capacity(text: str) -> Rate:
    try:
        capacity = rate(text)
    except UsageError:
        capacity = None
    if capacity is None or capacity.period not in _PERIODS:
        raise UsageError(f'"{text}" is no capacity', hint="write a number and hour, day or week: 100/day")
    return capacity


def _source_share(text: str | float) -> float:
    part = share(text)
    if not part:
        raise UsageError(
            f"a source_share of {text} is no part of the traffic",
            subject="training.threshold.source_share",
            hint="write 10% where the source holds every tenth request",
        )
    return part

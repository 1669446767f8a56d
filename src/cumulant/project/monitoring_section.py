"""The section `monitoring` of the project file as a policy: every duration, share and rate is parsed here, once."""

from __future__ import annotations

from datetime import timedelta

from cumulant.alerting.alerts_spec import AlertRuleSpec, AlertsSpec
from cumulant.alerting.policy import BUILT_IN, OTHERS, RESOLVE_AFTER, Policy, Rule
from cumulant.core.errors import UsageError
from cumulant.core.units import Rate, duration, rate, share
from cumulant.monitoring.policy import (
    DriftPolicy,
    HistoryPolicy,
    MonitoringPolicy,
    PerformancePolicy,
    RetrainBudget,
    RetrainPolicy,
)
from cumulant.monitoring.spec import DriftSpec, HistorySpec, MonitoringSpec, PerformanceSpec, RetrainSpec
from cumulant.review.policy import ReviewPolicy
from cumulant.review.spec import ReviewSpec


def monitoring_policy(spec: MonitoringSpec) -> MonitoringPolicy:
    """The section as numbers with units.

    Raises:
        UsageError: a value is not written as it should be, or is 0 where that means nothing; `subject` is its path.
    """
    return MonitoringPolicy(
        labels=spec.labels,
        alerts=alert_policy(spec.alerts),
        drift=drift_policy(spec.drift),
        performance=performance_policy(spec.performance),
        retrain=retrain_terms(spec.retrain),
        history=history_policy(spec.retrain.history),
        retrain_approval=spec.retrain.approval == "release",
        review=None if spec.review is None else review_policy(spec.review),
    )


def drift_policy(spec: DriftSpec) -> DriftPolicy:
    """Raises UsageError where a value is no duration or share, or the window is 0."""
    return DriftPolicy(
        window=_window("drift", spec.window),
        false_alarms=share(spec.false_alarms),
        effect=spec.effect,
        answers=spec.answers,
        missing=share(spec.missing),
        faults=share(spec.faults),
        volume=share(spec.volume),
        spans=tuple(spec.spans),
        weights=spec.weights,
        ignore=tuple(spec.ignore),
    )


def performance_policy(spec: PerformanceSpec) -> PerformancePolicy:
    """Raises UsageError where a value is no duration or share, or the window is 0."""
    return PerformancePolicy(
        window=_window("performance", spec.window),
        margin=share(spec.margin),
        false_alarms=share(spec.false_alarms),
        look_back=duration(spec.look_back),
        independent=spec.independent,
        reference_calibration=spec.reference_calibration,
        label_delay=_optional(spec.label_delay),
        refit=_optional(spec.refit),
    )


def retrain_terms(spec: RetrainSpec) -> RetrainPolicy:
    """Raises UsageError where a duration, or the budget, is not written as one, or is 0."""
    return RetrainPolicy(
        on_harm=spec.when == "loss_confirmed",
        every=_positive("every", spec.every),
        labels=spec.labels,
        hold=spec.hold,
        cool_down=duration(spec.cool_down),
        least_labels=spec.least_labels,
        at_most=training_budget(spec.at_most),
    )


def history_policy(spec: HistorySpec) -> HistoryPolicy:
    """Raises UsageError where a span is not written as one, or is 0."""
    return HistoryPolicy(
        window=_positive("history.window", spec.window), half_life=_positive("history.half_life", spec.half_life)
    )


def training_budget(text: str) -> RetrainBudget:
    """`2/month`; a month has 30 days. Of `2.5/month` it is 2 within 24 days, of `0.5/month` 1 within 60.

    Raises:
        UsageError: it is no rate, or 0.
    """
    budget = rate(text)
    if not budget.number:
        raise UsageError(f'"{text}" is no budget', subject=text, hint="write `when: never` to train only by hand")
    count = max(int(budget.number), 1)
    return RetrainBudget(count, budget.length * (count / budget.number))


def alert_policy(spec: AlertsSpec) -> Policy:
    """What the section says, over what is built in."""
    names = [*BUILT_IN, *(name for name in spec.rules if name not in BUILT_IN)]
    return Policy(
        rules={name: _alert_rule(spec, name) for name in names},
        others=_alert_rule(spec, ""),
        budget=rate(spec.budget),
        remind=duration(spec.remind).total_seconds(),
        reminders=spec.reminders,
    )


def _alert_rule(spec: AlertsSpec, name: str) -> Rule:
    own = spec.rules.get(name, AlertRuleSpec())
    level = own.level or BUILT_IN.get(name, OTHERS)
    return Rule(
        level=None if level == "off" else level,
        pending_for=duration(own.for_ or "0s").total_seconds(),
        resolve_after=duration(own.resolve_after or RESOLVE_AFTER.get(name, spec.resolve_after)).total_seconds(),
    )


def review_policy(spec: ReviewSpec) -> ReviewPolicy:
    """Raises UsageError where a value is no duration or share, or the budget is less than one case a period."""
    return ReviewPolicy(
        budget=review_budget(spec.budget),
        sample=share(spec.sample),
        reasons=tuple(spec.reasons),
        error=share(spec.error),
        far=share(spec.far),
        slices=tuple(spec.slices),
        deadline=duration(spec.deadline),
        fallback=spec.fallback,
        lease=duration(spec.lease),
        blind=spec.blind,
        second=share(spec.second),
        escalate_to=tuple(spec.escalate_to),
        reviewers=spec.reviewers,
        weights=spec.weights,
    )


def review_budget(text: str) -> Rate:
    """Raises UsageError where it is less than one case a period, of which none would ever be drawn."""
    budget = rate(text)
    if budget.number < 1:
        raise UsageError(
            f'a budget of "{text}" is less than one case',
            subject="monitoring.review.budget",
            hint="take a longer period: 1/week, 1/month",
        )
    return budget


def _window(section: str, text: str) -> timedelta:
    window = duration(text)
    if not window:
        raise UsageError(
            "a window has no length", subject=text, hint=f"write monitoring: {{{section}: {{window: 1d}}}}"
        )
    return window


def _positive(name: str, text: str | None) -> timedelta | None:
    """The duration of the key `name` of `monitoring.retrain`, where 0 would mean nothing."""
    span = _optional(text)
    if span is not None and not span:
        raise UsageError(
            f"monitoring.retrain.{name} may not be 0", subject=name, hint=f"leave {name} out, or write 30d"
        )
    return span


def _optional(text: str | None) -> timedelta | None:
    return None if text is None else duration(text)

"""The policies of monitoring as numbers; shares are fractions from 0 to 1. Made by `project.policies.monitoring`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from cumulant.alerting.policy import Policy
from cumulant.review.policy import ReviewPolicy


class DriftPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a change of the rows is an alarm: it is large enough to matter, and it is not chance."""

    #: length of a window, above 0
    window: timedelta = timedelta(days=1)
    #: chance of any alarm in a month in which nothing changes, over all features
    false_alarms: float = 0.05
    #: least Jensen-Shannon distance of a feature, and of predictions or labels
    effect: float = 0.1
    answers: float = 0.05
    #: least growth of the share of missing values, of values that cannot be, and of the number of rows
    missing: float = 0.05
    faults: float = 0.01
    volume: float = 0.33
    #: how many of the newest windows are evaluated together
    spans: tuple[int, ...] = (1, 7)
    #: what a feature counts against the others; 0 never alarms
    weights: Mapping[str, float] = {}
    #: columns that are not watched
    ignore: tuple[str, ...] = ()


class PerformancePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a served model has become worse: it loses more, by enough to matter, and it is not chance."""

    window: timedelta = timedelta(days=1)
    #: part of the loss on the test rows that may be lost without being called harm
    margin: float = 0.05
    #: chance that a model that is as good as ever is called worse within `look_back`
    false_alarms: float = 0.05
    look_back: timedelta = timedelta(days=60)
    independent: bool = False
    reference_calibration: bool = True
    #: None: the gap that training left
    label_delay: timedelta | None = None
    #: how often a light model is fitted to compare with; None: never
    refit: timedelta | None = timedelta(days=7)


class HistoryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a training that the rule starts learns from: rows of a window, weights that halve; None: all rows alike."""

    window: timedelta | None = None
    half_life: timedelta | None = None


class RetrainBudget(msgspec.Struct, frozen=True):
    """At most `count` trainings within any `within`."""

    count: int
    within: timedelta


class RetrainPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The retraining policy. An absent trigger does not fire.

    Args:
        on_harm: train where loss confirms harm.
        on_drift: train on every drift alarm, unconfirmed; for comparison.
        every: train when the model is as old.
        labels: train when as many labels are new since the last training.
        hold: consecutive looks that must confirm harm.
        cool_down: time after a training without another one, except by schedule.
        least_labels: new labels that a training needs.
        at_most: budget over all triggers; None: without.
    """

    on_harm: bool = True
    on_drift: bool = False
    every: timedelta | None = None
    labels: int | None = None
    hold: int = 1
    cool_down: timedelta = timedelta(days=7)
    least_labels: int = 500
    at_most: RetrainBudget | None = RetrainBudget(2, timedelta(days=30))


class MonitoringPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Monitoring, alerts and retraining of a served model."""

    #: where labels arrive later: a path, glob or URL
    labels: str | None
    alerts: Policy
    drift: DriftPolicy
    performance: PerformancePolicy
    retrain: RetrainPolicy
    history: HistoryPolicy
    #: an approval is needed before a retrained model is promoted
    retrain_approval: bool
    #: None: nothing is queued
    review: ReviewPolicy | None

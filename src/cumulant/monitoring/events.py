"""What monitoring reports. Names of columns and figures, never rows or values."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class DriftAlarm(Fact, frozen=True, kw_only=True):
    """One column that is alarming. `since`: the moment at which the first window of the change begins."""

    kind: ClassVar[str] = "monitoring.drift_alarm"
    feature: str
    change: str
    what: str
    effect: float
    since: str
    active: bool


class DriftEvaluated(Fact, frozen=True, kw_only=True):
    """The predictions of some windows were compared with a reference. `alarming`: how many windows were."""

    kind: ClassVar[str] = "monitoring.drift_evaluated"
    model: str
    rows: int
    windows: int
    alarming: int
    until: str
    alarms: tuple[DriftAlarm, ...]


class PerformanceEvaluated(Fact, frozen=True, kw_only=True):
    """Windows of a served version were evaluated. `word`: of harm; `action`: of the retraining policy."""

    kind: ClassVar[str] = "monitoring.performance_evaluated"
    model: str
    version: str
    until: str
    windows: int
    word: str
    change: str | None
    action: str
    reason: str


class RetrainingRequested(Fact, frozen=True, kw_only=True):
    """The retraining policy requests a training."""

    kind: ClassVar[str] = "monitoring.retraining_requested"
    model: str
    champion: str
    trigger: str
    reason: str


class RetrainingProgressed(Fact, frozen=True, kw_only=True):
    """The progress of a requested training: `trained`, `released`, `offered` (to promote), `refused` or `failed`."""

    kind: ClassVar[str] = "monitoring.retraining_progressed"
    model: str
    stage: str
    candidate: str | None
    release: str | None
    reason: str

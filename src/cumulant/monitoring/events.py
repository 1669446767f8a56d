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


class DriftLooked(Fact, frozen=True, kw_only=True):
    """The predictions of some windows were compared with a reference. `alarming`: how many windows were."""

    kind: ClassVar[str] = "monitoring.drift_looked"
    model: str
    rows: int
    windows: int
    alarming: int
    until: str
    alarms: tuple[DriftAlarm, ...]

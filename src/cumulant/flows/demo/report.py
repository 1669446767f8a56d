"""The records of the demo's releases, monitoring and review."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.flows.alerting.views import AlertView
from cumulant.flows.monitoring.run import MonitorFinding


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that was held: percent of the keys, active seconds, requests that counted in all and an arm."""

    name: str
    weight: float
    seconds: float
    samples: int
    champion_samples: int
    candidate_samples: int


class ReleaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """One release: what was released, what became of it and why. Failed requests are those that callers saw."""

    candidate: str
    version: str
    verdict: str
    reason: str
    stages: tuple[Stage, ...]
    failed_requests: int
    #: of them, by whose they were: `candidate`, `champion`, `gateway`, `caller`
    failed_by: dict[str, int]
    seconds: float
    id: str


class FindingReport(MonitorFinding, frozen=True, kw_only=True):
    """What a look at the moment `at` found, of the version that served then."""

    at: datetime
    version: str


class MonitoringReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the looks of the year found, and the alerts that came of it, those that are over too."""

    findings: tuple[FindingReport, ...] = ()
    alerts: tuple[AlertView, ...] = ()
    #: versions that the watch has had trained
    trained: tuple[str, ...] = ()


class ReviewReport(msgspec.Struct, frozen=True, kw_only=True):
    """Cases that came into the queue, those that were answered, and answers that the newest training learned from."""

    queued: int = 0
    answered: int = 0
    used_for_training: int = 0


class Year(msgspec.Struct, frozen=True, kw_only=True):
    """All that followed on the first model."""

    release: tuple[ReleaseReport, ...] = ()
    monitoring: MonitoringReport = MonitoringReport()
    review: ReviewReport = ReviewReport()

"""The records of the demo's releases, monitoring and review."""

from __future__ import annotations

from datetime import datetime

import msgspec

from cumulant.api.results import AlertView, MonitorFinding


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A finished stage: percent of the keys, active seconds, requests that counted, in all and by arm."""

    name: str
    weight: float
    seconds: float
    samples: int
    champion_samples: int
    candidate_samples: int


class ReleaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """One release: the candidate, the verdict and its reason. Failed requests are those that callers saw."""

    candidate: str
    version: str
    verdict: str
    reason: str
    stages: tuple[Stage, ...]
    failed_requests: int
    #: of them, by the party that failed: `candidate`, `champion`, `gateway`, `caller`
    failed_by: dict[str, int]
    seconds: float
    id: str


class FindingReport(MonitorFinding, frozen=True, kw_only=True):
    """A finding of the evaluation at the moment `at`, of the version that served then."""

    at: datetime
    version: str


class MonitoringReport(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of the year, and its alerts, those that are over too."""

    findings: tuple[FindingReport, ...] = ()
    alerts: tuple[AlertView, ...] = ()
    #: versions that monitoring had trained
    trained: tuple[str, ...] = ()


class ReviewReport(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of cases in the queue, of those answered, and of answers that the newest training learned from."""

    queued: int = 0
    answered: int = 0
    used_for_training: int = 0


class Year(msgspec.Struct, frozen=True, kw_only=True):
    """All that followed the first model."""

    release: tuple[ReleaseReport, ...] = ()
    monitoring: MonitoringReport = MonitoringReport()
    review: ReviewReport = ReviewReport()

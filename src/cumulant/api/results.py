"""Types of what the methods of a project return, for annotations and for records that extend them."""

from cumulant.flows.alerting.views import AlertView
from cumulant.flows.monitoring.run import MonitorFinding, MonitorRun
from cumulant.flows.monitoring.state import RetrainRequest
from cumulant.flows.replay.replay import ReplayResult
from cumulant.flows.reports.content import ReportData
from cumulant.flows.review.views import CaseView
from cumulant.flows.training.train import TrainResult
from cumulant.release.state import PassedStep, Release

__all__ = [
    "AlertView",
    "CaseView",
    "MonitorFinding",
    "MonitorRun",
    "PassedStep",
    "Release",
    "ReplayResult",
    "ReportData",
    "RetrainRequest",
    "TrainResult",
]

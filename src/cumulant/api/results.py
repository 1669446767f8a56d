"""Types of what the methods of a project return, for annotations and for records that extend them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cumulant.flows.alerting.views import AlertView
    from cumulant.flows.data.stream_views import StreamStatus
    from cumulant.flows.monitoring.run import MonitorFinding, MonitorRun
    from cumulant.flows.monitoring.state import RetrainRequest
    from cumulant.flows.replay.caller import ReplayClient
    from cumulant.flows.replay.replay import ReplayResult
    from cumulant.flows.reports.content import ReportData
    from cumulant.flows.review.views import CaseView
    from cumulant.flows.serving.predictions import PredictionView
    from cumulant.flows.training.train import TrainResult
    from cumulant.release.state import PassedStep, Release

#: imported on first use: some bring the engines of a training
_MODULES = {
    "AlertView": "flows.alerting.views",
    "CaseView": "flows.review.views",
    "MonitorFinding": "flows.monitoring.run",
    "MonitorRun": "flows.monitoring.run",
    "PassedStep": "release.state",
    "PredictionView": "flows.serving.predictions",
    "Release": "release.state",
    "ReplayClient": "flows.replay.caller",
    "ReplayResult": "flows.replay.replay",
    "ReportData": "flows.reports.content",
    "RetrainRequest": "flows.monitoring.state",
    "StreamStatus": "flows.data.stream_views",
    "TrainResult": "flows.training.train",
}

__all__ = [
    "AlertView",
    "CaseView",
    "MonitorFinding",
    "MonitorRun",
    "PassedStep",
    "PredictionView",
    "Release",
    "ReplayClient",
    "ReplayResult",
    "ReportData",
    "RetrainRequest",
    "StreamStatus",
    "TrainResult",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"cumulant.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

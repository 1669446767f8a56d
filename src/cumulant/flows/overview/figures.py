"""Figures of a model from what monitoring and releases have stored: quality, drift, traffic of both arms, freshness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from cumulant.flows.monitoring.state import MonitoringState, WindowRecord
from cumulant.monitoring.request_counts import RequestMinutes
from cumulant.release.state import Release

#: newest labelled windows of which the loss is the mean
_WINDOWS = 7
#: fewest windows for an interval
_FEWEST = 4
#: the span of figures of requests
_TRAFFIC = timedelta(minutes=15)
#: features that are named
_NAMED = 3


class QualityFigure(msgspec.Struct, frozen=True, kw_only=True):
    """The mean loss of a labelled prediction in the newest windows with labels, with 95%; `labelled` of `rows`.

    `word`: of harm, as monitoring tests it. `losses`: of those windows, the oldest first.
    """

    loss: float
    low: float | None
    high: float | None
    rows: int
    labelled: int
    windows: int
    since: datetime
    until: datetime
    word: str
    losses: tuple[float, ...]


class DriftFigure(msgspec.Struct, frozen=True, kw_only=True):
    """The last comparison of predictions with the reference; `features`: those that drift now, the largest first."""

    rows: int
    windows: int
    alarming: int
    until: str
    features: tuple[str, ...]


class TrafficFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the requests of a release that is under way, as its controller counts: by metric and arm."""

    champion: float | None
    candidate: float | None
    unit: str


class RequestFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Requests at the gateways in the newest `minutes`, of all versions. `errors`: the share with a server error;
    None: there were no requests. `p50`, `p99`: milliseconds, to within 5%; None: nothing was answered.
    """

    minutes: int
    per_second: float
    requests: int
    errors: float | None
    p50: float | None
    p99: float | None


def request_figure(minutes: RequestMinutes, now: datetime) -> RequestFigure:
    counts = minutes.within(_TRAFFIC, now)
    return RequestFigure(
        minutes=_TRAFFIC // timedelta(minutes=1),
        per_second=counts.requests / _TRAFFIC.total_seconds(),
        requests=counts.requests,
        errors=counts.errors / counts.requests if counts.requests else None,
        p50=minutes.quantile(0.5, _TRAFFIC, now),
        p99=minutes.quantile(0.99, _TRAFFIC, now),
    )


def quality_figure(state: MonitoringState | None) -> QualityFigure | None:
    """None where no window has labels."""
    windows = [] if state is None else [window for window in state.windows if window.loss is not None]
    newest = windows[-_WINDOWS:]
    if state is None or not newest:
        return None
    mean, low, high = mean_loss(newest)
    harm = state.newest_harm
    return QualityFigure(
        loss=mean,
        low=low,
        high=high,
        rows=sum(window.rows for window in newest),
        labelled=sum(window.labelled for window in newest),
        windows=len(newest),
        since=newest[0].start,
        until=newest[-1].end,
        word="cannot_tell" if harm is None else harm.word,
        losses=tuple(window.loss for window in newest if window.loss is not None),
    )


def mean_loss(windows: Sequence[WindowRecord]) -> tuple[float, float | None, float | None]:
    """The mean loss of a labelled row and its interval: windows are independent, rows of one window are not."""
    labelled = [(window.loss or 0.0, float(window.labelled)) for window in windows]
    total = sum(rows for _, rows in labelled)
    mean = sum(loss * rows for loss, rows in labelled) / total if total else 0.0
    count = len(labelled)
    if count < _FEWEST or not total:
        return mean, None, None
    from scipy.special import stdtrit

    squares = sum((rows * (loss - mean)) ** 2 for loss, rows in labelled)
    error = math.sqrt(squares * count / (count - 1)) / total
    reach = float(stdtrit(count - 1, 0.975)) * error
    return mean, mean - reach, mean + reach


def drift_figure(values: Mapping[str, Any] | None) -> DriftFigure | None:
    """From the stored event of the last comparison."""
    if values is None:
        return None
    active = sorted((alarm for alarm in values["alarms"] if alarm["active"]), key=lambda alarm: -abs(alarm["effect"]))
    return DriftFigure(
        rows=values["rows"],
        windows=values["windows"],
        alarming=values["alarming"],
        until=values["until"],
        features=tuple(dict.fromkeys(alarm["feature"] for alarm in active))[:_NAMED],
    )


def traffic_figures(release: Release | None) -> dict[str, TrafficFigure]:
    """Errors, time-outs and latency of both arms of a release under way; empty without one."""
    if release is None or release.over:
        return {}
    return {
        name: TrafficFigure(champion=board.champion, candidate=board.candidate, unit=board.unit)
        for name, board in release.boards.items()
        if name in ("errors", "timeouts", "latency")
    }

"""How much traffic a model has, declared or by its prediction log: while requests come, and how long at a stretch."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cumulant.core.errors import UsageError
from cumulant.core.units import show_duration

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERIOD = timedelta(days=7)
_RATE = re.compile(r"\s*([0-9]+(?:[.][0-9]+)?)\s*/\s*(s|m|min|h|d)\s*")
_PER = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
#: a break is a gap between requests that is longer than both: seconds, and times the median gap of distinct seconds
_LEAST_BREAK, _TIMES_MEDIAN = 600.0, 20.0
#: seconds that a stretch of requests has at least
_LEAST_STRETCH = 60.0


class MeasuredTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests a second while requests come; the longest stretch without a break, in seconds; the share of the time
    from the first request until now that such stretches fill.
    """

    rate: float
    longest: float
    share: float
    #: the share of the time that stretches fill where breaks recur; 1: there was one stretch, over or not
    recurring_share: float = 1.0

    @staticmethod
    def steady(rate: float) -> MeasuredTraffic:
        """Traffic without breaks."""
        return MeasuredTraffic(rate=rate, longest=math.inf, share=1.0)

    @property
    def mean_rate(self) -> float:
        """Requests a second, breaks between stretches included."""
        return self.rate * self.recurring_share

    def rate_within(self, seconds: float) -> float:
        """Requests a second of a stage that takes at most so many seconds: its clock runs on in a break."""
        return self.rate if seconds <= self.longest else self.mean_rate

    def source(self) -> str:
        """Where the rate comes from, in words."""
        text = "measured in the prediction log"
        if self.share >= 1:
            return text
        text += f" while requests came, which is {self.share:.2g} of the time"
        if self.recurring_share >= 1:
            return text
        mean, longest = f"{self.mean_rate:.3g} a second", _rounded(self.longest)
        return f"{text}; a stage that may take more than {longest} is planned with {mean}"

    def warning(self, seconds: float | None, at_most: float) -> str | None:
        """That a release of so many seconds (None: it ends undecided, at the latest `at_most`) is longer than requests
        ever came without a break; None where it is not.
        """
        if self.share >= 1 or (at_most if seconds is None else seconds) <= self.longest:
            return None
        text = f"requests came for {_rounded(self.longest)} at most without a break, and the release needs more"
        if self.recurring_share >= 1:
            return f"{text}: the plan holds where requests come that long at the same rate"
        return f"{text}: a stage that begins shortly before a break takes longer than planned"


def _rounded(seconds: float) -> str:
    """A length of time in two units."""
    unit = 3600 if seconds >= 86_400 else 60 if seconds >= 3600 else 1
    return show_duration(timedelta(seconds=round(seconds / unit) * unit))


def rate_of(text: str) -> float:
    """`200/s`, `30/m`, `500/h` or `2000/d` as requests a second.

    Raises:
        UsageError: it is not of that form, or is 0.
    """
    match = _RATE.fullmatch(text)
    rate = 0.0 if match is None else float(match[1]) / _PER[match[2]]
    if not rate > 0:
        raise UsageError(f'"{text}" is no traffic', subject="--requests", hint="write 200/s, 30/m, 500/h or 2000/d")
    return rate


def measured_traffic(log: Path, model: str, now: datetime) -> MeasuredTraffic | None:
    """The traffic of the last week; None where fewer than two requests are logged.

    Raises:
        StorageError: the log cannot be read.
    """
    if not log.is_dir():
        return None
    from cumulant.serving.log import request_times

    times = request_times(log, model, since=now - PERIOD) / 1e6
    return traffic_of(np.sort(times), now.timestamp()) if len(times) > 1 else None


def traffic_of(times: NDArray[np.float64], now: float) -> MeasuredTraffic:
    """The traffic of [n] sorted moments, in seconds, n > 1. A break is no traffic, also since the last request."""
    steps = np.diff(np.floor(times))
    steps = np.sort(steps[steps > 0])  # between distinct seconds; numpy.unique and numpy.median import numpy.ma
    median = float(steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2 if len(steps) else 0.0
    limit = max(_LEAST_BREAK, _TIMES_MEDIAN * median)
    # The time since the last request belongs to its stretch where it is no break.
    ends = times[-1:] if now - times[-1] > limit else np.array([now])
    marks = np.concatenate([times, ends])
    after = np.flatnonzero(np.diff(marks) > limit)
    begun, ended = marks[np.concatenate([[0], after + 1])], marks[np.concatenate([after, [len(marks) - 1]])]
    stretches = np.maximum(ended - begun, _LEAST_STRETCH)
    active = float(stretches.sum())
    breaks = begun[1:] - ended[:-1]
    # The last stretch is followed by a break as the others were; one that none was seen to follow says nothing of any.
    paused = float(breaks.mean()) * len(stretches) if len(breaks) else 0.0
    return MeasuredTraffic(
        rate=len(times) / active,
        longest=float(stretches.max()),
        share=min(1.0, active / max(now - float(times[0]), _LEAST_STRETCH)),
        recurring_share=active / (active + paused),
    )

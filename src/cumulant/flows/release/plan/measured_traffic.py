"""Traffic of a model: declared, or measured in its prediction log, with the observed time."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cumulant.core.errors import UsageError
from cumulant.core.units import show_duration
from cumulant.ports.log import Log
from cumulant.release.wording import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PERIOD = timedelta(days=7)
_RATE = re.compile(r"\s*([0-9]+(?:[.][0-9]+)?)\s*/\s*(s|m|min|h|d)\s*")
_PER = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
#: a break is a gap between requests that is longer than both: seconds, and times the median gap of distinct seconds
_LEAST_BREAK, _TIMES_MEDIAN = 600.0, 20.0
_DAY = 86_400.0
#: seconds that a stretch of requests has at least
_LEAST_STRETCH = 60.0


class MeasuredTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests come, as far as they were observed. Times in seconds, rates in requests a second."""

    #: while requests come
    rate: float
    #: breaks included: over what was observed, and from a whole day on no more than over its newer half
    mean_rate: float
    #: the longest time without a break
    longest: float
    #: the share of the time from the first request until now in which requests came
    share: float
    #: from the first request until now, at most a week; infinity: the traffic was declared
    observed: float
    #: since the last request, where that is a break
    idle: float = 0.0

    @staticmethod
    def steady(rate: float) -> MeasuredTraffic:
        """Traffic without breaks."""
        return MeasuredTraffic(rate=rate, mean_rate=rate, longest=math.inf, share=1.0, observed=math.inf)

    @property
    def requests_a_day(self) -> float | None:
        """None: less than a day was observed."""
        return 86_400 * self.mean_rate if _whole_days(self.observed) else None

    def rate_within(self, seconds: float) -> float:
        """Requests a second of a stage that takes at most so many seconds: its clock runs on in a break."""
        if seconds > self.longest:
            return self.mean_rate
        return min(self.rate, self.mean_rate) if _whole_days(self.longest) else self.rate

    def source(self) -> str:
        """Where the rate comes from, in words."""
        if math.isinf(self.observed):
            return "declared"
        text = f"measured in the prediction log of the last {_length(self.observed)}"
        if self.share < 1:
            text += f" while requests came, which is {self.share:.2g} of the time"
        if self.mean_rate >= self.rate:
            return text
        longest = _length(self.longest)
        return f"{text}; a stage that may take more than {longest} is planned with {rounded(self.mean_rate)} a second"

    def warning(self, seconds: float | None, at_most: float) -> str | None:
        """That a release of so many seconds (None: it ends undecided, at the latest `at_most`) is longer than requests
        were observed, or ever came without a break; None where it is not.
        """
        needed = at_most if seconds is None else seconds
        if self.idle > _DAY:
            rate = f"{self.rate:.4f}/s" if self.rate >= 0.1 else f"{86_400 * self.rate:.4f}/d"
            return (
                f"no request came in the last {_length(self.idle)}: the plan counts that time; where requests come"
                f" again as before, declare them (--requests {rate})"
            )
        if self.requests_a_day is None and needed > self.observed:
            return (
                f"the prediction log covers {_length(self.observed)} only, and the release needs more: how long it"
                " takes is not known; plan again once whole days are logged, or declare the traffic (--requests)"
            )
        if self.share >= 1 or needed <= self.longest:
            return None
        return (
            f"requests came for {_length(self.longest)} at most without a break, and the release needs more: a stage"
            " that begins shortly before a break takes longer than planned"
        )


def _length(seconds: float) -> str:
    """A length of time in two units."""
    unit = 3600 if seconds >= 86_400 else 60 if seconds >= 3600 else 1
    return show_duration(timedelta(seconds=round(seconds / unit) * unit))


def parse_rate(text: str) -> float:
    """`200/s`, `30/m`, `500/h` or `2000/d` as requests a second.

    Raises:
        UsageError: it is not of that form, or is 0.
    """
    match = _RATE.fullmatch(text)
    rate = 0.0 if match is None else float(match[1]) / _PER[match[2]]
    if not rate > 0:
        raise UsageError(f'"{text}" is no traffic', subject="--requests", hint="write 200/s, 30/m, 500/h or 2000/d")
    return rate


def measure_traffic(log: Log, model: str, now: datetime) -> MeasuredTraffic | None:
    """The traffic of the last week, without what a clock that was ahead dated later than now; None where fewer than
    two requests are logged.

    Raises:
        StorageError: the log cannot be read.
    """
    if not log.days():
        return None
    from cumulant.serving.prediction_log.storage.log_reader import requests_by_second

    seconds, counts = requests_by_second(log, model, since=now - PERIOD, until=now)
    return estimate_traffic(seconds.astype(np.float64), now.timestamp(), counts) if counts.sum() > 1 else None


def estimate_traffic(times: Floats, now: float, counts: NDArray[np.int64] | None = None) -> MeasuredTraffic:
    """The traffic of [n] sorted moments up to `now`, in seconds, n > 0, and the requests at each (default: one).

    A break is no traffic, also since the last request.
    """
    counts = np.ones(len(times), dtype=np.int64) if counts is None else counts
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
    active, observed = float(stretches.sum()), max(now - float(times[0]), _LEAST_STRETCH)
    return MeasuredTraffic(
        rate=float(counts.sum()) / active,
        mean_rate=_mean_rate(times, counts, now, observed),
        longest=float(stretches.max()),
        share=min(1.0, active / observed),
        observed=observed,
        idle=0.0 if ends[0] == now else now - float(times[-1]),
    )


def _mean_rate(times: Floats, counts: NDArray[np.int64], now: float, observed: float) -> float:
    """Requests a second, breaks included: of all whole days or of their newer half, whichever is less."""
    days, total = _whole_days(observed), float(counts.sum())
    if not days:
        return total / observed
    newest = (days, max(1, days // 2))
    totals = [float(counts[np.searchsorted(times, now - some * _DAY) :].sum()) for some in newest]
    rates = [count / (some * _DAY) for count, some in zip(totals, newest, strict=True) if count]
    return min(rates, default=total / (math.ceil(observed / _DAY) * _DAY))


def _whole_days(seconds: float) -> int:
    """How many days, of which a tenth may lack: the first request of a week comes after its begin."""
    return math.floor(min(seconds / _DAY, PERIOD.days) + 0.1)

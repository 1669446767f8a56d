"""The project's labelled rows cut into windows of time, and how late their labels come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import DataError, UsageError
from cumulant.core.units import from_micros, micros, show_duration, to_micros
from cumulant.monitoring.backtest import BacktestHistory

if TYPE_CHECKING:
    from cumulant.training.dataset import TrainingSet

#: a window is evaluated when this part of its labels is due: a few very late ones would delay all
_PROMPT = 0.99
#: a look may be as much of a window after its end, so that labels of some hours do not cost a week
_SLACK = 0.1
#: fewer windows show no change, so that days are taken where there are so few weeks; and more are a mistake
_ENOUGH, _MOST = 20, 2_000
#: a last window of which less is there is no window
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class WindowPlaces:
    """A window: its number, and the places of its rows."""

    number: int
    places: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class WindowedRows:
    """Rows in windows. `delay`: windows whose labels have not come at an evaluation."""

    rows: TrainingSet
    history: BacktestHistory[WindowPlaces]
    start: datetime
    every: timedelta
    delay: int

    @property
    def end(self) -> datetime:
        return self.start + len(self.history.inputs) * self.every

    def known_by(self, last: int) -> int:
        """Microseconds since 1970: when a training of the windows up to `last` takes place."""
        return to_micros(self.start) + round((last + 1 + self.delay + _SLACK) * micros(self.every))


def cut_windows(
    rows: TrainingSet, *, every: timedelta | None, since: datetime | None, until: datetime | None, source: str
) -> WindowedRows:
    """Windows by moment of prediction, from midnight UTC of the first on; a week each, or a day where weeks are few.

    Raises:
        UsageError: the source has no event time, a window no length, or there are too many windows.
        DataError: no row with a label is left.
    """
    if rows.at is None:
        raise UsageError(
            f"{source} has no event time, so nothing can be replayed",
            subject=source,
            hint=f"declare `event_time` under data: {source}:",
        )
    if every is not None and every <= timedelta(0):
        raise UsageError("--every may not be 0", subject="--every", hint="give a length, such as 7d")
    rows = _between(rows, since, until)
    assert rows.at is not None
    start = since or _midnight(from_micros(int(rows.at.min())))
    span = timedelta(microseconds=int(rows.at.max()) - to_micros(start))
    every = every or timedelta(days=7 if span >= _ENOUGH * timedelta(days=7) else 1)
    count = math.floor(span / every) + (span / every % 1 >= _HALF)
    if count > _MOST:
        raise UsageError(
            f"{count:,} windows of {show_duration(every)} are too many to replay",
            subject="--every",
            hint=f"give a longer window, such as --every {show_duration(timedelta(days=max(1, span.days // 100)))}",
        )
    number = (rows.at - to_micros(start)) // micros(every)
    order = np.argsort(rows.at, kind="stable")
    ends = np.searchsorted(number[order], np.arange(count + 1))
    parts = [WindowPlaces(place, order[ends[place] : ends[place + 1]]) for place in range(count)]
    times = rows.at.astype("datetime64[us]")
    return WindowedRows(
        rows=rows,
        history=BacktestHistory(
            inputs=parts,
            truths=[rows.target[part.places] for part in parts],
            times=[times[part.places] for part in parts],
        ),
        start=start,
        every=every,
        delay=_delay(rows, every),
    )


def _between(rows: TrainingSet, since: datetime | None, until: datetime | None) -> TrainingSet:
    assert rows.at is not None
    within = np.ones(len(rows), dtype=bool)
    if since is not None:
        within &= rows.at >= to_micros(since)
    if until is not None:
        within &= rows.at < to_micros(until)
    if not within.any():
        raise DataError(
            "no row with a label lies there", subject="history", hint="check --since, --until and `training.since`"
        )
    return rows if within.all() else rows.take(within)


def _delay(rows: TrainingSet, every: timedelta) -> int:
    """Whole windows after the end of one until its labels have come."""
    if rows.at is None or rows.known is None:
        return 0
    lag = float(np.quantile(rows.known - rows.at, _PROMPT))
    return max(0, math.ceil(lag / micros(every) - _SLACK))


def _midnight(when: datetime) -> datetime:
    return datetime(when.year, when.month, when.day, tzinfo=UTC)

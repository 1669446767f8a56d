"""Requests that gateways answered, counted by minute, with the times that the newest of them took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import msgspec

from cumulant.core.traffic import Exchange
from cumulant.core.units import to_micros

_MINUTE, _HOUR = 60_000_000, 60
_GIVEN_UP, _SERVER_ERROR = 499, 500
#: parts of a doubling in which times are counted: a quantile is known to within 5%
_PARTS = 8
#: newest minutes of which times are kept
_TIMED = 60
#: minutes by which the clock of a gateway may be ahead of the reader's, and by which that may be set back at once
_AHEAD, _SET_BACK = 2, 24 * _HOUR


class RequestCounts(msgspec.Struct, kw_only=True, array_like=True):
    """Requests of a span: all, those with a server error, those that a server answered, and the slow ones of these;
    those whose caller gave up before the answer, and of these the ones that had waited longer than an answer may take.
    """

    requests: int = 0
    errors: int = 0
    answered: int = 0
    slow: int = 0
    given_up: int = 0
    given_up_late: int = 0

    def add(self, other: RequestCounts) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.answered += other.answered
        self.slow += other.slow
        self.given_up += other.given_up
        self.given_up_late += other.given_up_late


class RequestHistory(msgspec.Struct, kw_only=True):
    """The counts of a `RequestMinutes`, to be stored: by minutes since 1970, times by `_bucket`."""

    minutes: dict[int, RequestCounts] = {}
    times: dict[int, dict[int, int]] = {}


class RequestMinutes:
    """Counts by minute, from the requests that a gateway answered; predictions that no tester forced.

    `within`: an answer that took longer is a slow one.
    """

    def __init__(self, model: str, *, within: timedelta | None, history: RequestHistory | None = None) -> None:
        self._model = model
        self._within = None if within is None else within / timedelta(microseconds=1)
        known = history or RequestHistory()
        self._minutes = defaultdict(RequestCounts, known.minutes)
        self._times = defaultdict(Counter[int], {minute: Counter(times) for minute, times in known.times.items()})
        self._hours = _by_hour(self._minutes)

    def add(self, exchanges: Iterable[Exchange], now: datetime) -> None:
        """Count requests that were read `now`: those of a clock that is ahead were before, and count as of now."""
        newest = to_micros(now) // _MINUTE
        self._bring_back(newest)
        for exchange in exchanges:
            if exchange.model != self._model or exchange.forced or not exchange.predicts:
                continue
            minute = exchange.time // _MINUTE
            minute = newest if minute > newest + _AHEAD else minute
            counts = RequestCounts(requests=1, errors=int(exchange.status >= _SERVER_ERROR))
            is_late = int(self._within is not None and exchange.duration_us > self._within)
            if exchange.status == _GIVEN_UP:
                counts.given_up, counts.given_up_late = 1, is_late
            elif exchange.served:
                counts.answered, counts.slow = 1, is_late
                self._times[minute][_bucket(exchange.duration_us)] += 1
            self._minutes[minute].add(counts)
            self._hours[minute // _HOUR].add(counts)

    def _bring_back(self, newest: int) -> None:
        """Count as of now what was read before the reader's clock was set back, and neither never nor again later."""
        first, end = newest + _AHEAD + 1, newest + _SET_BACK
        if first >= _HOUR * (1 + max(self._hours, default=0)):
            return
        for minute in [minute for minute in self._minutes if first <= minute < end]:
            self._minutes[newest].add(self._minutes.pop(minute))
            self._times[newest] += self._times.pop(minute, Counter())
        self._hours = _by_hour(self._minutes)

    def forget(self, before: datetime) -> None:
        """Drop the hours before that of `before`, and the times of all but the newest minutes."""
        first = to_micros(before) // _MINUTE // _HOUR
        self._drop([hour for hour in self._hours if hour < first])

    def keep(self, hours: int) -> None:
        """Drop all but the newest `hours` that have requests, and the times of all but the newest minutes.

        What is dropped depends on no clock, which may be wrong for a moment.
        """
        self._drop(sorted(self._hours)[:-hours])

    def _drop(self, hours: Iterable[int]) -> None:
        for hour in hours:
            del self._hours[hour]
            for minute in range(hour * _HOUR, (hour + 1) * _HOUR):
                self._minutes.pop(minute, None)
        for minute in list(self._times)[:-_TIMED]:  # in the order of reading: a gateway's clock may have been ahead
            del self._times[minute]

    @property
    def minutes(self) -> Mapping[int, RequestCounts]:
        """By minutes since 1970."""
        return self._minutes

    @property
    def history(self) -> RequestHistory:
        return RequestHistory(
            minutes=dict(self._minutes), times={minute: dict(times) for minute, times in self._times.items()}
        )

    def within(self, span: timedelta, now: datetime) -> RequestCounts:
        """Of the whole minutes that begin in the `span` before `now`, or a little later, by a clock that is ahead.

        Those far ahead count when their moment comes.
        """
        total, first, last = RequestCounts(), -(-to_micros(now - span) // _MINUTE), to_micros(now) // _MINUTE + _AHEAD
        for hour, counts in self._hours.items():
            begin, end = hour * _HOUR, (hour + 1) * _HOUR
            if first <= begin and end <= last:
                total.add(counts)
            elif first < end and begin <= last:
                for minute in range(max(first, begin), min(end, last + 1)):
                    if minute in self._minutes:
                        total.add(self._minutes[minute])
        return total

    def latest(self, span: timedelta, now: datetime) -> Iterator[tuple[int, RequestCounts]]:
        """The minutes that `within` counts, the newest first."""
        first, last = -(-to_micros(now - span) // _MINUTE), to_micros(now) // _MINUTE + _AHEAD
        for minute in sorted(self._minutes, reverse=True):
            if first <= minute <= last:
                yield minute, self._minutes[minute]

    def quantile(self, share: float, span: timedelta, now: datetime) -> float | None:
        """Milliseconds within which the `share` of the answers of the last `span` came, to within 5%; None: there were
        none. Of at most the newest hour.
        """
        first, last = -(-to_micros(now - span) // _MINUTE), to_micros(now) // _MINUTE
        times = sum((self._times[m] for m in range(first, last + 1) if m in self._times), Counter[int]())
        rank = math.ceil(share * times.total())
        for bucket in sorted(times):
            rank -= times[bucket]
            if rank <= 0:
                return 2 ** ((bucket + 0.5) / _PARTS) / 1000
        return None


def _by_hour(minutes: Mapping[int, RequestCounts]) -> defaultdict[int, RequestCounts]:
    hours: defaultdict[int, RequestCounts] = defaultdict(RequestCounts)
    for minute, counts in minutes.items():
        hours[minute // _HOUR].add(counts)
    return hours


def _bucket(micros: int) -> int:
    return math.floor(math.log2(max(micros, 1)) * _PARTS)

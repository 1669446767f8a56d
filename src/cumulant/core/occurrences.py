"""Counts of equal occurrences: each is reported when it begins, and then once a window with its number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K")


class Occurrences(msgspec.Struct, frozen=True):
    """How often something occurred, first and last."""

    count: int
    first: datetime
    last: datetime

    def joined(self, other: Occurrences | None) -> Occurrences:
        """With what occurred at another time."""
        if other is None:
            return self
        return Occurrences(self.count + other.count, min(self.first, other.first), max(self.last, other.last))


class _Known(msgspec.Struct):
    reported: datetime
    pending: Occurrences | None = None


class OccurrenceCounter(Generic[K]):
    """Decides when equal occurrences are reported; used by many threads.

    The first one is reported at once, others after `window` since the last report, with their number. Beyond `most`
    keys, `merged` gives a key that stands for many; there must be few of these.
    """

    def __init__(self, window: timedelta, most: int, merged: Callable[[K], K]) -> None:
        self._window, self._most, self._merged = window, most, merged
        self._known: dict[K, _Known] = {}
        self._lock = threading.Lock()

    def add(self, key: K, now: datetime) -> tuple[K, Occurrences] | None:
        """Count an occurrence; what is to be reported of it now, under its key or the merged one; None: nothing yet."""
        with self._lock:
            if key not in self._known and len(self._known) >= self._most:
                key = self._merged(key)
            known, occurred = self._known.get(key), Occurrences(1, now, now)
            if known is None:
                self._known[key] = _Known(now)
                return key, occurred
            known.pending = occurred.joined(known.pending)
            return (key, self._take(known, now)) if self._is_over(known, now) else None

    def due(self, now: datetime, *, every: bool = False) -> list[tuple[K, Occurrences]]:
        """What is to be reported of windows that are over; of `every` one, at the end."""
        with self._lock:
            over = {key: known for key, known in self._known.items() if every or self._is_over(known, now)}
            due = [(key, self._take(known, now)) for key, known in over.items() if known.pending is not None]
            for key in over.keys() - {key for key, _ in due}:
                del self._known[key]
            return due

    def put_back(self, key: K, occurrences: Occurrences) -> None:
        """Take back what could not be reported: it is due with the next report."""
        with self._lock:
            known = self._known.setdefault(key, _Known(occurrences.first - self._window))
            known.pending = occurrences.joined(known.pending)
            known.reported = min(known.reported, occurrences.first - self._window)

    def __len__(self) -> int:
        """Keys that are told apart at present."""
        return len(self._known)

    def _take(self, known: _Known, now: datetime) -> Occurrences:
        pending = known.pending
        assert pending is not None, "only what is pending is taken"
        known.pending, known.reported = None, now
        return pending

    def _is_over(self, known: _Known, now: datetime) -> bool:
        # A clock that was set back holds nothing up.
        return not timedelta() <= now - known.reported < self._window

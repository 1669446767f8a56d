"""Confirmations of durable entries that the log process sends to workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

import msgspec

from cumulant.serving.prediction_log.entry import COMMITTED, COUNTER, REFUSED, RefusedEntries, make_frame

_RANGES = 1024
#: a worker without a connection sends nothing again after so long
_ABSENT_SECONDS = 60.0


class Confirmations:
    """Sequence numbers of one worker, which arrive in order; after a reconnect some arrive again."""

    def __init__(self) -> None:
        #: the newest number that came, and the newest that was settled
        self.last = self._settled = 0
        self._refused: deque[RefusedEntries] = deque(maxlen=_RANGES)
        self._again: list[int] = []

    @property
    def waits(self) -> bool:
        """Whether entries arrived that are not confirmed yet."""
        return self.last > self._settled or bool(self._again)

    def is_new(self, sequence: int) -> bool:
        """Whether the entry is new; a repeated one is confirmed again as before."""
        if sequence > self.last:
            self.last = sequence
            return True
        self._again.append(sequence)
        return False

    def record_recovered(self, sequence: int) -> None:
        """Register a number that an earlier log process made durable."""
        self.last = self._settled = max(self.last, sequence)

    def refuse(self, why: str, first: int | None = None) -> int:
        """Refuse the numbers from `first`, or all that are not settled; returns their count."""
        begin = self._settled + 1 if first is None else first
        if begin <= self.last:
            self._refused.append(RefusedEntries(begin, self.last, why))
        return self.last + 1 - begin

    def frames(self) -> bytes:
        """Frames that confirm or refuse everything since the last call."""
        first = min([self._settled + 1, *self._again])
        self._settled, self._again = self.last, []
        refused = sorted(
            (entries for entries in self._refused if entries.last >= first), key=lambda entries: entries.first
        )
        frames = [make_frame(REFUSED, msgspec.msgpack.encode(entries)) for entries in refused]
        return b"".join([*frames, make_frame(COMMITTED, COUNTER.pack(self.last))])


class Workers:
    """Confirmations of every worker with durable logging."""

    def __init__(self) -> None:
        self._confirmations: dict[str, Confirmations] = {}
        #: the newest number of workers in journals of an earlier log process
        self._recovered: dict[str, int] = {}
        #: since when a worker has no connection
        self._absent: dict[str, float] = {}

    def record_recovered(self, worker: str, sequence: int) -> None:
        """Register a number that an earlier log process made durable."""
        self._recovered[worker] = max(self._recovered.get(worker, 0), sequence)

    def connect(self, worker: str, newest: Callable[[str], int]) -> Confirmations:
        """Confirmations of a worker that connects; `newest` reads the durable number of an unknown one."""
        confirmations = self._confirmations.get(worker)
        if confirmations is None:
            confirmations = self._confirmations[worker] = Confirmations()
            confirmations.record_recovered(max(self._recovered.pop(worker, 0), newest(worker)))
        return confirmations

    def waiting(self) -> list[Confirmations]:
        """Confirmations with unconfirmed entries."""
        return [confirmations for confirmations in self._confirmations.values() if confirmations.waits]

    def forget(self, worker: str) -> None:
        self._confirmations.pop(worker, None)

    def expire(self, connected: Collection[str], now: float) -> None:
        """Drop workers without a connection for a minute; `now` in seconds of a monotonic clock."""
        absent = {*self._confirmations, *self._recovered}.difference(connected)
        self._absent = {worker: self._absent.get(worker, now) for worker in absent}
        for worker, since in list(self._absent.items()):
            if now - since >= _ABSENT_SECONDS:
                self._confirmations.pop(worker, None)
                self._recovered.pop(worker, None)

"""Which entries of a worker are on the disk, as the log process tells the worker that waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

import msgspec

from cumulant.serving.prediction_log.entry import COMMITTED, COUNTER, REFUSED, RefusedEntries, make_frame

_RANGES = 1024
#: a worker without a connection sends nothing again after so long
_ABSENT_SECONDS = 60.0


class Confirmations:
    """The numbers of one worker, which come in order; after a new connection some come again."""

    def __init__(self) -> None:
        #: the newest number that came, and the newest that was settled
        self.last = self._settled = 0
        self._refused: deque[RefusedEntries] = deque(maxlen=_RANGES)
        self._again: list[int] = []

    @property
    def waits(self) -> bool:
        """Whether something came that the worker was not told of."""
        return self.last > self._settled or bool(self._again)

    def is_new(self, sequence: int) -> bool:
        """Whether the entry has not come before; one that has is settled again as it was."""
        if sequence > self.last:
            self.last = sequence
            return True
        self._again.append(sequence)
        return False

    def recovered(self, sequence: int) -> None:
        """The number is on the disk since an earlier log process."""
        self.last = self._settled = max(self.last, sequence)

    def refuse(self, why: str, first: int | None = None) -> int:
        """The numbers from `first`, or all that are not settled, are not on the disk; how many they are."""
        begin = self._settled + 1 if first is None else first
        if begin <= self.last:
            self._refused.append(RefusedEntries(begin, self.last, why))
        return self.last + 1 - begin

    def frames(self) -> bytes:
        """What the worker is told of all that came since the last call."""
        first = min([self._settled + 1, *self._again])
        self._settled, self._again = self.last, []
        refused = sorted(
            (entries for entries in self._refused if entries.last >= first), key=lambda entries: entries.first
        )
        frames = [make_frame(REFUSED, msgspec.msgpack.encode(entries)) for entries in refused]
        return b"".join([*frames, make_frame(COMMITTED, COUNTER.pack(self.last))])


class Workers:
    """The confirmations of each worker whose requests wait for the disk."""

    def __init__(self) -> None:
        self._confirmations: dict[str, Confirmations] = {}
        #: the newest number of workers in journals of an earlier log process
        self._recovered: dict[str, int] = {}
        #: since when a worker has no connection
        self._absent: dict[str, float] = {}

    def recovered(self, worker: str, sequence: int) -> None:
        """The number is on the disk since an earlier log process."""
        self._recovered[worker] = max(self._recovered.get(worker, 0), sequence)

    def greet(self, worker: str, newest: Callable[[str], int]) -> Confirmations:
        """The confirmations of a worker that connects; of an unknown one, `newest` reads what is on the disk."""
        confirmations = self._confirmations.get(worker)
        if confirmations is None:
            confirmations = self._confirmations[worker] = Confirmations()
            confirmations.recovered(max(self._recovered.pop(worker, 0), newest(worker)))
        return confirmations

    def waiting(self) -> list[Confirmations]:
        """Those of which something came that the worker was not told of."""
        return [confirmations for confirmations in self._confirmations.values() if confirmations.waits]

    def forget(self, worker: str) -> None:
        self._confirmations.pop(worker, None)

    def expire(self, connected: Collection[str], now: float) -> None:
        """Drop workers that have had no connection for a minute; `now` in seconds of any steady clock."""
        absent = {*self._confirmations, *self._recovered}.difference(connected)
        self._absent = {worker: self._absent.get(worker, now) for worker in absent}
        for worker, since in list(self._absent.items()):
            if now - since >= _ABSENT_SECONDS:
                self._confirmations.pop(worker, None)
                self._recovered.pop(worker, None)

"""Which entries of a worker are on the disk, as the log process tells the worker that waits for it."""

from __future__ import annotations

from collections import deque

import msgspec

from cumulant.serving.log.entry import COMMITTED, COUNTER, REFUSED, Refused, frame

_RANGES = 1024


class Confirmations:
    """The numbers of one worker, which come in order; after a new connection some come again."""

    def __init__(self) -> None:
        #: the newest number that came, and the newest that was settled
        self.last = self._settled = 0
        self._refused: deque[Refused] = deque(maxlen=_RANGES)
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
            self._refused.append(Refused(begin, self.last, why))
        return self.last + 1 - begin

    def frames(self) -> bytes:
        """What the worker is told of all that came since the last call."""
        first = min([self._settled + 1, *self._again])
        self._settled, self._again = self.last, []
        refused = sorted((one for one in self._refused if one.last >= first), key=lambda one: one.first)
        told = [frame(REFUSED, msgspec.msgpack.encode(one)) for one in refused]
        return b"".join([*told, frame(COMMITTED, COUNTER.pack(self.last))])

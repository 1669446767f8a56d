"""One entity's events, mutable: an event is inserted by when it became known, old ones are removed."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from cumulant.core.plan import DType
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.row_identity import NO_IDENTITY
from cumulant.features.online.state import Events, Slot, encode, typecode


class GroupEvent(NamedTuple):
    """A row as an event: time of entry, its own time, identity, earliest possible posting, values."""

    time: int
    event_time: int
    identity: int
    first_moment: int
    values: list[Any]


class _Values:
    """One value of each event, with None for null."""

    def __init__(self, slot: Slot | None, dtype: DType) -> None:
        self._code = typecode(dtype)
        self._texts: list[str | None] = []
        self._numbers: array[Any] = array(self._code or "q")
        self._valid: bytearray | None = None
        if slot is not None:
            self._texts = list(slot.texts or ())
            self._numbers.frombytes(slot.data)
            self._valid = None if slot.valid is None else bytearray(slot.valid)

    def insert(self, at: int, value: Any) -> None:
        if self._code is None:
            self._texts.insert(at, value)
            return
        if value is None and self._valid is None:
            self._valid = bytearray(b"\x01" * len(self._numbers))
        self._numbers.insert(at, self._number(value))
        if self._valid is not None:
            self._valid.insert(at, value is not None)

    def fill(self, at: int, value: Any) -> bool:
        """Set a value that was null; whether it was."""
        if value is None:
            return False
        if self._code is None:
            if self._texts[at] is not None:
                return False
            self._texts[at] = value
            return True
        if self._valid is None or self._valid[at]:
            return False
        self._numbers[at], self._valid[at] = self._number(value), 1
        return True

    def remove(self, at: int) -> None:
        if self._code is None:
            del self._texts[at]
            return
        del self._numbers[at]
        if self._valid is not None:
            del self._valid[at]

    def cut(self, count: int) -> None:
        """Remove the first `count`."""
        if self._code is None:
            del self._texts[:count]
            return
        del self._numbers[:count]
        if self._valid is not None:
            del self._valid[:count]

    def slot(self) -> Slot:
        if self._code is None:
            return Slot(texts=self._texts)
        flags = None if self._valid is None or 0 not in self._valid else bytes(self._valid)
        return Slot(self._numbers.tobytes(), None, flags)

    def _number(self, value: Any) -> float:
        if value is None:
            return 0
        return float(value) if self._code == "d" else int(value)


class Entity:
    """The events of one entity of `group`, none where `events` is None."""

    def __init__(self, group: MeasureGroup, events: Events | None, *, keyed: bool) -> None:
        self._span, self._unlimited = group.span_us, group.unlimited
        self._times = _integers(None if events is None else events.times)
        self._identities = _integers(None if events is None else events.identities) if keyed else None
        self._event_times = (
            _integers(None if events is None else events.event_times) if group.orders_by_event_time else None
        )
        slots: Sequence[Slot | None] = [None] * len(group.kinds) if events is None else events.slots
        self._values = [_Values(slot, kind) for slot, kind in zip(slots, group.kinds, strict=True)]
        self.since = None if events is None else events.since
        self.kept = None if events is None else events.kept

    def place(self, event: GroupEvent) -> bool | None:
        """Insert the event, or fill nulls of the present row; whether that changed it, None where it was complete."""
        at = self._find(event.identity)
        if at >= 0:
            filled = [values.fill(at, value) for values, value in zip(self._values, event.values, strict=True)]
            return any(filled) or None
        at = self._place_of(event)
        if self._event_times is not None:
            self._event_times.insert(at, event.event_time)
        self._times.insert(at, event.time)
        if self._identities is not None:
            self._identities.insert(at, event.identity)
        for values, value in zip(self._values, event.values, strict=True):
            values.insert(at, value)
        return True

    def _place_of(self, event: GroupEvent) -> int:
        """Where an event belongs: the same place in whatever order events come."""
        start, end = bisect_left(self._times, event.time), bisect_right(self._times, event.time)
        if start == end or self._identities is None:
            return end
        dated = self._event_times
        if dated is None:
            return bisect_right(self._identities, event.identity, start, end)
        ranks = list(zip(dated[start:end], self._identities[start:end], strict=True))
        return start + bisect_right(ranks, (event.event_time, event.identity))

    def remove(self, identity: int) -> bool:
        """Take the row with this key out; whether it was here."""
        at = self._find(identity)
        if at < 0:
            return False
        for column in (self._times, self._identities, self._event_times):
            if column is not None:
                del column[at]
        for values in self._values:
            values.remove(at)
        return True

    def changed_at(self, moment: int) -> None:
        """A correction or deletion is in force from `moment` on: those before it are answered from what is left."""
        self.since = moment if self.since is None else max(moment, self.since)

    def expire(self, since: int) -> None:
        """Remove what no prediction from `since` on can see; where that is anything, those before it miss it."""
        if self.trim(since):
            self.kept = since if self.kept is None else max(since, self.kept)
            self.since = since if self.since is None else max(since, self.since)

    def trim(self, since: int) -> int:
        """Remove what no prediction from `since` on can see; how many that was."""
        gone = bisect_right(self._times, since - self._span)
        if self._unlimited:
            gone = max(min(gone, bisect_right(self._times, since) - 1), 0)
        if gone:
            for column in (self._times, self._identities, self._event_times):
                if column is not None:
                    del column[:gone]
            for values in self._values:
                values.cut(gone)
        return gone

    @property
    def identities(self) -> frozenset[int]:
        """The keys of the rows that are here."""
        return frozenset(self._identities or ())

    def second_newest(self, until: int) -> int | None:
        """When the second newest of the events known by `until` became known; None where there are fewer."""
        at = bisect_right(self._times, until) - 2
        return self._times[at] if at >= 0 else None

    @property
    def empty(self) -> bool:
        return not self._times

    def blob(self, version: int) -> bytes:
        return encode(
            Events(
                times=self._times.tobytes(),
                slots=[values.slot() for values in self._values],
                identities=None if self._identities is None else self._identities.tobytes(),
                event_times=None if self._event_times is None else self._event_times.tobytes(),
                since_us=self.since if self.since is None or self.since == self.kept else (self.since, self.kept),
                version=version.to_bytes(8, "big"),
            )
        )

    def _find(self, identity: int) -> int:
        """The position of the row with this key, or -1."""
        if self._identities is None or identity == NO_IDENTITY:
            return -1
        wanted, raw = array("q", [identity]).tobytes(), self._identities.tobytes()
        at = raw.find(wanted)
        while at >= 0 and at % 8:
            at = raw.find(wanted, at + 1)
        return at // 8 if at >= 0 else -1


def _integers(data: bytes | None) -> array[int]:
    numbers = array("q")
    numbers.frombytes(data or b"")
    return numbers

"""Events in their order, mutable: the columns of an entity, or of a tile of one."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from cumulant.core.plan import DType
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.row_identity import find_identity
from cumulant.features.online.state import Events, Slot, typecode


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
        self._numbers.insert(at, number_of(value, self._code))
        if self._valid is not None:
            self._valid.insert(at, value is not None)

    def copy(self, origin: _Values, at: int, place: int) -> None:
        """Insert a value of `origin`, which may be these values, at `place`, with the bits that it is stored with."""
        if self._code is None:
            self._texts.insert(place, origin._texts[at])
            return
        valid = origin._valid is None or bool(origin._valid[at])
        if not valid and self._valid is None:
            self._valid = bytearray(b"\x01" * len(self._numbers))
        self._numbers.insert(place, origin._numbers[at])
        if self._valid is not None:
            self._valid.insert(place, valid)

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
        self._numbers[at], self._valid[at] = number_of(value, self._code), 1
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


class EventColumns:
    """Events of `group`, none where `events` is None."""

    def __init__(self, group: MeasureGroup, events: Events | None, *, keyed: bool) -> None:
        self.times = _integers(None if events is None else events.times)
        self.identities = _integers(None if events is None else events.identities) if keyed else None
        self.event_times = (
            _integers(None if events is None else events.event_times) if group.orders_by_event_time else None
        )
        slots: Sequence[Slot | None] = [None] * len(group.kinds) if events is None else events.slots
        self._values = [_Values(slot, kind) for slot, kind in zip(slots, group.kinds, strict=True)]

    def __len__(self) -> int:
        return len(self.times)

    def insert(self, event: GroupEvent) -> None:
        at = self._place_of(event)
        if self.event_times is not None:
            self.event_times.insert(at, event.event_time)
        self.times.insert(at, event.time)
        if self.identities is not None:
            self.identities.insert(at, event.identity)
        for values, value in zip(self._values, event.values, strict=True):
            values.insert(at, value)

    def copy(self, origin: EventColumns, at: int, place: int) -> None:
        """Insert an event of `origin`, which may be these columns, at `place`."""
        for column, other in zip(self._integers(), origin._integers(), strict=True):
            column.insert(place, other[at])
        for values, others in zip(self._values, origin._values, strict=True):
            values.copy(others, at, place)

    def fill(self, at: int, event: GroupEvent) -> bool:
        """Set values of an event that are null; whether any was."""
        filled = [values.fill(at, value) for values, value in zip(self._values, event.values, strict=True)]
        return any(filled)

    def remove(self, at: int) -> None:
        for column in self._integers():
            del column[at]
        for values in self._values:
            values.remove(at)

    def cut(self, count: int) -> None:
        """Remove the first `count`."""
        for column in self._integers():
            del column[:count]
        for values in self._values:
            values.cut(count)

    def find(self, identity: int) -> int:
        """The position of the row with this key, or -1."""
        return -1 if self.identities is None else find_identity(self.identities.tobytes(), identity)

    def events(self, since_us: int | tuple[int, int | None] | None = None, version: int = 0) -> Events:
        """In their stored form."""
        return Events(
            times=self.times.tobytes(),
            slots=tuple([values.slot() for values in self._values]),
            identities=None if self.identities is None else self.identities.tobytes(),
            event_times=None if self.event_times is None else self.event_times.tobytes(),
            since_us=since_us,
            version=version.to_bytes(8, "big"),
        )

    def _integers(self) -> list[array[int]]:
        return [column for column in (self.times, self.identities, self.event_times) if column is not None]

    def _place_of(self, event: GroupEvent) -> int:
        """Where an event belongs: the same place in whatever order events come."""
        start, end = bisect_left(self.times, event.time), bisect_right(self.times, event.time)
        if start == end or self.identities is None:
            return end
        dated = self.event_times
        if dated is None:
            return bisect_right(self.identities, event.identity, start, end)
        ranks = list(zip(dated[start:end], self.identities[start:end], strict=True))
        return start + bisect_right(ranks, (event.event_time, event.identity))


def number_of(value: Any, code: str) -> float:
    """A value as it is stored where values have this type code; 0 for null."""
    if value is None:
        return 0
    return float(value) if code == "d" else int(value)


def _integers(data: bytes | None) -> array[int]:
    numbers = array("q")
    numbers.frombytes(data or b"")
    return numbers

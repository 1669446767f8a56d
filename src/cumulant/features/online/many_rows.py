"""The windows and lookups of one group for many rows of a request at once: one pass over packed arrays.

Aggregations of numbers are those of the offline engine (`offline.kernel`). A call of numpy costs as much for one row as
for a hundred, so that few rows are faster one after the other (`GroupReader.measure`). Both give equal results, except
for the last digits of standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cumulant.core.plan import Aggregation, Window
from cumulant.features.offline.kernel.ranges import Numbers
from cumulant.features.offline.kernel.timeline import Bisection, Flags, Ints
from cumulant.features.offline.kernel.values import Ranges, RangeValues
from cumulant.features.online.entity_history import EntityHistory, unpacked
from cumulant.features.online.group_reader import GroupMeasure, GroupReader, Inside, Past, value_of
from cumulant.features.online.state import Slot, typecode

Reaches = tuple[int | None, ...]
#: so many values have standard deviations by the formula for few
_FEW = 1 << 16
#: so many windows of single rows take as long as one aggregation of packed arrays
_CALL = 60
#: an own row never joins: later than any moment
_NEVER = np.iinfo(np.int64).max
_AGGREGATIONS: Mapping[Aggregation, Callable[[RangeValues, Ranges], tuple[Numbers, Flags | None]]] = {
    "count": RangeValues.count,
    "sum": RangeValues.total,
    "mean": RangeValues.mean,
    "min": lambda values, ranges: values.extreme(ranges, largest=False),
    "max": lambda values, ranges: values.extreme(ranges, largest=True),
    "std": RangeValues.deviation,
}


class _OwnRow(NamedTuple):
    """A row as an event: when it enters, None where it does not, its values and its identity."""

    enters: int | None
    values: list[Any]
    identity: int


class _Numbers:
    """The values of one slot, packed; see `NumberSource`."""

    def __init__(self, slots: Sequence[Slot], own: Numbers | None, *, is_float: bool) -> None:
        self._slots, self._own, self._is_float = slots, own, is_float

    def events(self) -> Numbers:
        return unpacked(b"".join([slot.data for slot in self._slots]), is_float=self._is_float)

    def own(self) -> Numbers | None:
        return self._own


class ManyRows:
    """Rows with a key and a moment each, and the history of each row's entity, None where it has none."""

    def __init__(
        self,
        group: GroupReader,
        rows: Sequence[Inside],
        moments: Sequence[int],
        histories: Sequence[EntityHistory | None],
    ) -> None:
        self._group, self._histories = group, histories
        self._own = [
            _OwnRow(*group.own_event(row, at, history))
            for row, at, history in zip(rows, moments, histories, strict=True)
        ]
        #: each entity once: a request may ask for one many times
        self._entities = list({id(history): history for history in histories if history is not None}.values())
        times = [entity.events.times for entity in self._entities]
        self._sizes = [len(each) // 8 for each in times]
        self._bounds: Ints = np.cumsum([0, *self._sizes], dtype=np.int64)
        self._keys: Ints = np.repeat(np.arange(len(times)), self._sizes)
        number = {id(entity): at for at, entity in enumerate(self._entities)}
        of_row = np.array([-1 if history is None else number[id(history)] for history in histories], dtype=np.int64)
        self._starts: Ints = self._bounds[of_row]
        self._starts[of_row < 0] = 0
        self._ends: Ints = np.where(of_row < 0, 0, self._bounds[of_row + 1])
        self._times = np.frombuffer(b"".join(times), dtype=np.int64)
        self._moments = np.array(moments, dtype=np.int64)
        self._enters = np.array([_NEVER if own.enters is None else own.enters for own in self._own], dtype=np.int64)
        reaches = dict.fromkeys(each.reach for each in group.measures)
        limited = [reach for reach in reaches if reach is not None]
        ends = self._until([self._moments, *(self._moments - reach for reach in limited)])
        self._hi = ends[0]
        begins: dict[int | None, Ints] = {None: self._starts}
        begins |= zip(limited, ends[1:], strict=True)
        #: the events of each row known in (moment - reach, moment]; without a reach, all up to the moment
        self._ranges = {reach: Ranges(begins[reach], self._hi, self._joining(reach)) for reach in reaches}
        self._joined: dict[Reaches, Ranges] = {}
        self._values: dict[tuple[int, Reaches], RangeValues] = {}

    def columns(self) -> dict[str, list[Any]]:
        """Each window and lookup by name, over the rows."""
        columns: dict[str, list[Any]] = {}
        packed: dict[tuple[int, Aggregation], list[GroupMeasure]] = {}
        for each in self._group.measures:
            aggregation = _packed_aggregation(self._group, each)
            if aggregation is None or not self._entities:
                columns[each.name] = self._one_by_one(each)
            else:
                packed.setdefault((each.slot, aggregation), []).append(each)
        for (slot, aggregation), measures in packed.items():
            reaches = tuple(dict.fromkeys(each.reach for each in measures))
            results = self._aggregated(slot, aggregation, reaches)
            columns |= {each.name: _converted(each, *results[each.reach]) for each in measures}
        return columns

    def newest(self) -> list[int | None]:
        """For each row the time of the newest stored event that any measure used."""
        reaches = [each.reach for each in self._group.measures]
        longest = None if None in reaches else max(reach for reach in reaches if reach is not None)
        lo = self._ranges[longest].lo.tolist()
        return [
            None if end <= begin else int(self._times[end - 1])
            for begin, end in zip(lo, self._hi.tolist(), strict=True)
        ]

    def _aggregated(
        self, slot: int, aggregation: Aggregation, reaches: Reaches
    ) -> dict[int | None, tuple[list[Any], list[bool] | None]]:
        """An aggregation of one value over windows of several lengths at once: its results, and where they exist."""
        ranges, values = self._all_ranges(reaches), self._range_values(slot, reaches)
        numbers, flags = _AGGREGATIONS[aggregation](values, ranges)
        if numbers.dtype == np.float64 and not (finite := np.isfinite(numbers)).all():
            flags = finite if flags is None else flags & finite
        results, size = {}, len(self._moments)
        for at, reach in enumerate(reaches):
            part = slice(at * size, (at + 1) * size)
            exists = None if flags is None or flags[part].all() else flags[part].tolist()
            results[reach] = (numbers[part].tolist(), exists)
        return results

    def _all_ranges(self, reaches: Reaches) -> Ranges:
        """The ranges of all rows for the first reach, then for the second, and so on."""
        if reaches not in self._joined:
            each = [self._ranges[reach] for reach in reaches]
            own = [of.own for of in each if of.own is not None]
            lo, hi = np.concatenate([of.lo for of in each]), np.tile(self._hi, len(reaches))
            self._joined[reaches] = Ranges(lo, hi, np.concatenate(own) if own else None)
        return self._joined[reaches]

    def _one_by_one(self, each: GroupMeasure) -> list[Any]:
        """A lookup, the newest value, a number of rows or of different values, and whatever is made of texts."""
        ranges = self._ranges[each.reach]
        joins = [False] * len(self._own) if ranges.own is None else ranges.own.tolist()
        starts, convert, values = self._starts.tolist(), each.convert, []
        for at, (start, lo, hi) in enumerate(zip(starts, ranges.lo.tolist(), self._hi.tolist(), strict=True)):
            history, own = self._histories[at], self._own[at]
            own_value = own.values[each.slot] if joins[at] and each.slot >= 0 else None
            if history is not None and each.aggregate is not None:
                value = each.aggregate(history.values[each.slot], lo - start, hi - start, own_value)
            else:
                past = Past(history, each.slot, lo - start, hi - start)
                value = value_of(each.measure, past, own.enters if joins[at] else None, own_value, own.identity)
            values.append(value if value is None or convert is None else convert(value))
        return values

    def _joining(self, reach: int | None) -> Flags | None:
        """Which rows join their own range; None where no row enters at all."""
        if all(own.enters is None for own in self._own):
            return None
        joins: Flags = self._enters != _NEVER
        return joins if reach is None else joins & (self._enters > self._moments - reach)

    def _until(self, moments: Sequence[Ints]) -> list[Ints]:
        """For each row the position after its entity's last event up to its moment, of several moments a row."""
        if not len(self._times):
            return [self._starts for _ in moments]
        count = len(moments)
        result = np.empty(count * len(self._moments), dtype=np.int64)
        search = Bisection(self._times, len(result))
        search.until(np.tile(self._starts, count), np.tile(self._ends, count), np.concatenate(moments), out=result)
        return np.split(result, count)

    def _range_values(self, slot: int, reaches: Reaches) -> RangeValues:
        if (slot, reaches) not in self._values:
            slots = [entity.events.slots[slot] for entity in self._entities]
            is_float = self._group.group.kinds[slot] == "float"
            own, own_valid = self._own_values(slot, len(reaches), is_float=is_float)
            self._values[slot, reaches] = RangeValues(
                _Numbers(slots, own, is_float=is_float),
                self._keys,
                valid=_valid(slots, self._sizes),
                own_valid=own_valid,
                is_float=is_float,
                few=int(self._all_ranges(reaches).count.sum()) < _FEW,
            )
        return self._values[slot, reaches]

    def _own_values(self, slot: int, times: int, *, is_float: bool) -> tuple[Numbers | None, Flags | None]:
        """The rows' own values, once for each window, and which there are; None where no row has one."""
        values = [own.values[slot] if own.values else None for own in self._own]
        exists = np.array([value is not None for value in values], dtype=np.bool_)
        if all(own.enters is None for own in self._own):
            return None, None
        numbers = [0 if value is None else value for value in values]
        if is_float:
            return np.tile(np.array(numbers, np.float64), times), np.tile(exists, times)
        return np.tile(np.array(numbers, np.int64), times), np.tile(exists, times)


def rows_to_pack(groups: Sequence[GroupReader]) -> int:
    """From how many rows of a request on it is faster to compute them together."""
    measures = [(group, each) for group in groups for each in group.measures]
    calls = {(group.group.number, each.slot, _packed_aggregation(group, each)) for group, each in measures}
    return -(-_CALL * len(calls) // max(len(measures), 1))


def _packed_aggregation(group: GroupReader, each: GroupMeasure) -> Aggregation | None:
    """The aggregation over packed numbers; None for what is computed row by row."""
    of = each.measure
    if each.aggregate is None or not isinstance(of, Window) or of.agg not in _AGGREGATIONS:
        return None
    return None if typecode(group.group.kinds[each.slot]) is None else of.agg


def _valid(slots: Sequence[Slot], sizes: Sequence[int]) -> Flags | None:
    """Which values are not null; None where all are."""
    if all(slot.valid is None for slot in slots):
        return None
    flags = [b"\x01" * size if slot.valid is None else slot.valid for slot, size in zip(slots, sizes, strict=True)]
    return np.frombuffer(b"".join(flags), dtype=np.bool_)


def _converted(each: GroupMeasure, values: list[Any], exists: list[bool] | None) -> list[Any]:
    convert = each.convert
    if convert is not None and values and type(values[0]) is not convert:
        values = [convert(value) for value in values]
    if exists is None:
        return values
    return [value if there else None for value, there in zip(values, exists, strict=True)]

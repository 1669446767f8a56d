"""The windows and lookups of one group for many rows of a request at once: one pass over packed arrays.

Aggregations of numbers are those of the offline engine (`offline.kernel`). A call of numpy costs as much for one row as
for a hundred, so that few rows are faster one after the other (`GroupReader.measure`). Both give equal results, except
for the last digits of standard deviations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cumulant.core.plan import Aggregation, Window
from cumulant.features.offline.kernel.ranges import Numbers
from cumulant.features.offline.kernel.timeline import Bisection, Flags, Ints
from cumulant.features.offline.kernel.values import Ranges, RangeValues
from cumulant.features.online.entity_history import EntityHistory, unpacked
from cumulant.features.online.group_reader import GroupMeasure, GroupReader, Inside, Past, value_of
from cumulant.features.online.state import Slot, typecode

Reaches = tuple[int | None, ...]
Slots = tuple[int, ...]
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


class _Packing(NamedTuple):
    """What is aggregated at once: values of one type, over windows of the same lengths."""

    aggregation: Aggregation
    reaches: Reaches
    is_float: bool


class PackedMeasures(NamedTuple):
    """The measures of a group: by what is aggregated at once and by slot, and those that are computed row by row."""

    packings: Mapping[_Packing, Mapping[int, Sequence[GroupMeasure]]]
    others: Sequence[GroupMeasure]


class _Numbers:
    """The values of some slots, packed one slot after the other; see `NumberSource`."""

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
        measures: PackedMeasures,
        rows: Sequence[Inside],
        moments: Sequence[int],
        histories: Sequence[EntityHistory | None],
    ) -> None:
        self._group, self._measures, self._histories = group, measures, histories
        self._own = [
            group.own_event(row, at, history) for row, at, history in zip(rows, moments, histories, strict=True)
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
        #: which rows enter at all; None for none
        self._entering: Flags | None = enter if (enter := self._enters != _NEVER).any() else None
        reaches = dict.fromkeys(each.reach for each in group.measures)
        limited = [reach for reach in reaches if reach is not None]
        ends = self._until([self._moments, *(self._moments - reach for reach in limited)])
        self._hi = ends[0]
        begins: dict[int | None, Ints] = {None: self._starts}
        begins |= zip(limited, ends[1:], strict=True)
        #: the events of each row known in (moment - reach, moment]; without a reach, all up to the moment
        self._ranges = {reach: Ranges(begins[reach], self._hi, self._joining(reach)) for reach in reaches}
        self._joined: dict[tuple[int, Reaches], Ranges] = {}
        self._values: dict[tuple[Slots, Reaches], RangeValues] = {}

    def columns(self) -> dict[str, list[Any]]:
        """Each window and lookup by name, over the rows."""
        if not self._entities:
            return {each.name: self._one_by_one(each) for each in self._group.measures}
        columns = {each.name: self._one_by_one(each) for each in self._measures.others}
        for packing, of_slots in self._measures.packings.items():
            results = self._aggregated(packing, tuple(of_slots))
            for slot, measures in of_slots.items():
                columns |= {each.name: _converted(each, *results[slot, each.reach]) for each in measures}
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
        self, packing: _Packing, slots: Slots
    ) -> dict[tuple[int, int | None], tuple[list[Any], list[bool] | None]]:
        """An aggregation of some values over windows of several lengths at once: its results by slot and length, and
        where they exist.
        """
        ranges = self._all_ranges(len(slots), packing.reaches)
        numbers, flags = _AGGREGATIONS[packing.aggregation](self._range_values(packing, slots), ranges)
        if numbers.dtype == np.float64 and not (finite := np.isfinite(numbers)).all():
            flags = finite if flags is None else flags & finite
        results, size = {}, len(self._moments)
        for at, place in enumerate(itertools.product(slots, packing.reaches)):
            part = slice(at * size, (at + 1) * size)
            exists = None if flags is None or flags[part].all() else flags[part].tolist()
            results[place] = (numbers[part].tolist(), exists)
        return results

    def _all_ranges(self, slots: int, reaches: Reaches) -> Ranges:
        """In the events of so many slots, the ranges of all rows for the first reach, then for the second, and so on;
        those of the first slot, then of the second.
        """
        if (slots, reaches) not in self._joined:
            each = [self._ranges[reach] for reach in reaches] * slots
            own = [of.own for of in each if of.own is not None]
            begins = np.repeat(np.arange(slots) * len(self._times), len(reaches) * len(self._moments))
            lo, hi = np.concatenate([of.lo for of in each]), np.tile(self._hi, len(each))
            self._joined[slots, reaches] = Ranges(lo + begins, hi + begins, np.concatenate(own) if own else None)
        return self._joined[slots, reaches]

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
        if self._entering is None or reach is None:
            return self._entering
        joins: Flags = self._entering & (self._enters > self._moments - reach)
        return joins

    def _until(self, moments: Sequence[Ints]) -> list[Ints]:
        """For each row the position after its entity's last event up to its moment, of several moments a row."""
        if not len(self._times):
            return [self._starts for _ in moments]
        count = len(moments)
        result = np.empty(count * len(self._moments), dtype=np.int64)
        search = Bisection(self._times, len(result))
        search.until(np.tile(self._starts, count), np.tile(self._ends, count), np.concatenate(moments), out=result)
        return np.split(result, count)

    def _range_values(self, packing: _Packing, slots: Slots) -> RangeValues:
        if (slots, packing.reaches) not in self._values:
            stored = [entity.events.slots[slot] for slot in slots for entity in self._entities]
            own, own_valid = self._own_values(packing, slots)
            self._values[slots, packing.reaches] = RangeValues(
                _Numbers(stored, own, is_float=packing.is_float),
                np.concatenate([self._keys + at * len(self._entities) for at in range(len(slots))]),
                valid=_valid(stored, self._sizes * len(slots)),
                own_valid=own_valid,
                is_float=packing.is_float,
                few=int(self._all_ranges(len(slots), packing.reaches).count.sum()) < _FEW,
            )
        return self._values[slots, packing.reaches]

    def _own_values(self, packing: _Packing, slots: Slots) -> tuple[Numbers | None, Flags | None]:
        """The rows' own values, of each slot once for each window, and which there are; None where no row has one."""
        if self._entering is None:
            return None, None
        values = [[own.values[slot] if own.values else None for own in self._own] for slot in slots]
        exists = np.array([[value is not None for value in of_slot] for of_slot in values], dtype=np.bool_)
        present = [[0 if value is None else value for value in of_slot] for of_slot in values]
        numbers: npt.NDArray[Any] = np.array(present, np.float64 if packing.is_float else np.int64)
        times = (1, len(packing.reaches))
        joins: Flags = np.tile(exists, times).ravel()
        return np.tile(numbers, times).ravel(), joins


def pack_measures(group: GroupReader) -> PackedMeasures:
    of_slots: dict[tuple[int, Aggregation], list[GroupMeasure]] = {}
    others = []
    for each in group.measures:
        aggregation = _packed_aggregation(group, each)
        if aggregation is None:
            others.append(each)
        else:
            of_slots.setdefault((each.slot, aggregation), []).append(each)
    packings: dict[_Packing, dict[int, Sequence[GroupMeasure]]] = {}
    for (slot, aggregation), measures in of_slots.items():
        reaches = tuple(dict.fromkeys(each.reach for each in measures))
        packing = _Packing(aggregation, reaches, group.group.kinds[slot] == "float")
        packings.setdefault(packing, {})[slot] = measures
    return PackedMeasures(packings, others)


def rows_to_pack(groups: Sequence[PackedMeasures]) -> int:
    """From how many rows of a request on it is faster to compute them together."""
    calls = sum(len(group.packings) + len({each.slot for each in group.others}) for group in groups)
    slots = [measures for group in groups for of_slots in group.packings.values() for measures in of_slots.values()]
    count = sum(map(len, slots)) + sum(len(group.others) for group in groups)
    return -(-_CALL * calls // max(count, 1))


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

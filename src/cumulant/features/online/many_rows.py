"""The windows and lookups of one group for many rows of a request at once, over concatenated arrays.

Aggregations of numbers are those of the offline engine (`offline.kernel`). A call of numpy costs as much for one row as
for a hundred, so that few rows are faster one after the other (`GroupReader.measure`). Both give equal results, except
for the last digits of standard deviations and the sign of zero. Which other columns are aggregated in the same call
changes no result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cumulant.core.plan import Aggregation, Window
from cumulant.features.offline.kernel.ranges import Numbers
from cumulant.features.offline.kernel.timeline import Bisection, Flags, Ints
from cumulant.features.offline.kernel.values import Ranges, RangeValues
from cumulant.features.offline.row_identity import NO_IDENTITY
from cumulant.features.online.entity_history import EntityHistory, unpacked
from cumulant.features.online.group_reader import (
    NEVER,
    GroupMeasure,
    GroupReader,
    OwnEvents,
    Past,
    latest_value,
    value_of,
)
from cumulant.features.online.requests import RequestRows
from cumulant.features.online.state import Slot, typecode

Reaches = tuple[int | None, ...]
Slots = tuple[int, ...]
#: up to so many values of a column have standard deviations by the formula for few
_FEW = 1 << 18
#: up to so many values are aggregated at once: with more, columns take no less together than one after the other
_TOGETHER = 1 << 16
#: columns whose values are so many powers of two apart are summed one after the other (`PrefixSums`)
_APART = 128
#: so many windows of single rows take as long as one aggregation of concatenated arrays
_CALL = 60
_AGGREGATIONS: Mapping[Aggregation, Callable[[RangeValues, Ranges], tuple[Numbers, Flags | None]]] = {
    "count": RangeValues.count,
    "sum": RangeValues.total,
    "mean": RangeValues.mean,
    "min": lambda values, ranges: values.extreme(ranges, largest=False),
    "max": lambda values, ranges: values.extreme(ranges, largest=True),
    "std": RangeValues.deviation,
}
_SUMMED = frozenset[Aggregation]({"sum", "mean"})


class MeasureBatch(NamedTuple):
    """What can be aggregated at once: values of one type, over windows of the same lengths."""

    aggregation: Aggregation
    reaches: Reaches
    is_float: bool


class BatchedMeasures(NamedTuple):
    """The measures of a group: by what can be aggregated at once and by slot, and those that are computed row by
    row.
    """

    batches: Mapping[MeasureBatch, Mapping[int, Sequence[GroupMeasure]]]
    row_by_row: Sequence[GroupMeasure]


class _Columns:
    """The values of so many slots, one slot after the other, and the rows' own; see `NumberSource`, `RangeValues`."""

    def __init__(
        self, count: int, numbers: Numbers, valid: Flags | None, own: Numbers | None, own_valid: Flags | None
    ) -> None:
        self._count, self._numbers, self._own = count, numbers, own
        self.valid, self.own_valid = valid, own_valid

    def events(self) -> Numbers:
        return self._numbers

    def own(self) -> Numbers | None:
        return self._own

    @cached_property
    def alike(self) -> list[list[int]]:
        """The slots, by position, in parts whose values are of like size."""
        arrays = [self._numbers] if self._own is None else [self._numbers, self._own]
        values: npt.NDArray[Any] = np.concatenate(arrays)
        whole = _span(values)
        if whole.high - whole.low <= _APART:
            return [[*range(self._count)]]
        lines = np.concatenate([each.reshape(self._count, -1) for each in arrays], axis=1)
        return _alike([_span(line) for line in lines])


class _Span(NamedTuple):
    """The powers of two of a smallest and a largest value."""

    low: int
    high: int


def _span(numbers: Numbers) -> _Span:
    """Of the values that are not 0; that of 1 where there are none."""
    sizes = np.abs(numbers)
    if not len(sizes) or (largest := float(sizes.max())) == 0.0:
        return _Span(1, 1)
    smallest = float(sizes.min()) or float(sizes[sizes > 0.0].min())
    return _Span(math.frexp(smallest)[1], math.frexp(largest)[1])


class ManyRows:
    """Rows with a key and a moment each, and the history of each row's entity, None where it has none."""

    def __init__(
        self,
        group: GroupReader,
        measures: BatchedMeasures,
        rows: RequestRows,
        moments: Sequence[int],
        histories: Sequence[EntityHistory | None],
    ) -> None:
        self._group, self._measures, self._histories = group, measures, histories
        #: each entity once, by its number: a request may have many rows of one
        numbers = {history: at for at, history in enumerate(dict.fromkeys(filter(None, histories)))}
        self._entities = list(numbers)
        times = [entity.events.times for entity in self._entities]
        self._sizes = [len(each) // 8 for each in times]
        self._bounds: Ints = np.cumsum([0, *self._sizes], dtype=np.int64)
        of_row = np.array([-1 if history is None else numbers[history] for history in histories], dtype=np.int64)
        self._starts: Ints = self._bounds[of_row]
        self._starts[of_row < 0] = 0
        self._ends: Ints = np.where(of_row < 0, 0, self._bounds[of_row + 1])
        self._times = np.frombuffer(b"".join(times), dtype=np.int64)
        self._moments = np.array(moments, dtype=np.int64)
        self._own = group.own_rows(rows, moments)
        #: which rows enter at all; None for none
        self._entering: Flags | None = None
        if self._own is not None:
            self._enters = np.array(self._own.enters, dtype=np.int64)
            entering = self._enters != NEVER
            entering &= ~self._already_stored(self._own)
            if entering.any():
                self._entering = entering
        reaches = dict.fromkeys(each.reach for each in group.measures)
        limited = [reach for reach in reaches if reach is not None]
        ends = self._until([self._moments, *(self._moments - reach for reach in limited)])
        self._hi = ends[0]
        begins: dict[int | None, Ints] = {None: self._starts}
        begins |= zip(limited, ends[1:], strict=True)
        #: the events of each row known in (moment - reach, moment]; without a reach, all up to the moment
        self._ranges = {reach: Ranges(begins[reach], self._hi, self._joining(reach)) for reach in reaches}
        self._joined: dict[tuple[int, Reaches], Ranges] = {}
        self._parts_of: dict[tuple[Slots, Reaches, bool], list[Slots]] = {}
        self._columns: dict[tuple[Slots, Reaches], _Columns] = {}
        self._values: dict[tuple[Slots, Reaches], RangeValues] = {}

    def columns(self) -> dict[str, list[Any]]:
        """Each window and lookup by name, over the rows."""
        if not self._entities:
            return {each.name: self._one_by_one(each) for each in self._group.measures}
        columns = {each.name: self._one_by_one(each) for each in self._measures.row_by_row}
        for batch, of_slots in self._measures.batches.items():
            for slots in self._parts(batch, tuple(of_slots)):
                results = self._aggregated(batch, slots)
                for slot in slots:
                    columns |= {each.name: _converted(each, *results[slot, each.reach]) for each in of_slots[slot]}
        return columns

    def newest(self) -> list[int | None]:
        """For each row the time of the newest stored event that any measure used."""
        reaches = [each.reach for each in self._group.measures]
        longest = None if None in reaches else max(reach for reach in reaches if reach is not None)
        used = self._hi > self._ranges[longest].lo
        times: list[int | None] = [None] * len(used)
        for at, time in zip(np.flatnonzero(used).tolist(), self._times[self._hi[used] - 1].tolist(), strict=True):
            times[at] = time
        return times

    def _parts(self, batch: MeasureBatch, slots: Slots) -> list[Slots]:
        """The slots that are aggregated at once."""
        by_size = batch.is_float and batch.aggregation in _SUMMED
        key = slots, batch.reaches, by_size
        if key not in self._parts_of:
            size = max(_TOGETHER // max(self._count(batch.reaches, slots), len(self._times), 1), 1)
            alike = [slots]
            if by_size and min(size, len(slots)) > 1:
                alike = [tuple(slots[at] for at in part) for part in self._batch_columns(batch, slots).alike]
            self._parts_of[key] = [part[at : at + size] for part in alike for at in range(0, len(part), size)]
        return self._parts_of[key]

    def _count(self, reaches: Reaches, slots: Slots) -> int:
        """How many values all windows of these lengths have of each of the slots, nulls included."""
        return self._all_ranges(len(slots), reaches).size // len(slots)

    def _aggregated(
        self, batch: MeasureBatch, slots: Slots
    ) -> dict[tuple[int, int | None], tuple[list[Any], list[bool] | None]]:
        """An aggregation of some values over windows of several lengths at once: its results by slot and length, and
        where they exist.
        """
        ranges = self._all_ranges(len(slots), batch.reaches)
        numbers, flags = _AGGREGATIONS[batch.aggregation](self._range_values(batch, slots), ranges)
        if numbers.dtype == np.float64 and not (finite := np.isfinite(numbers)).all():
            flags = finite if flags is None else flags & finite
        shape = (len(slots) * len(batch.reaches), len(self._moments))
        exists: list[list[bool] | None] = [None] * shape[0]
        if flags is not None and not flags.all():
            there = flags.reshape(shape)
            for at in np.flatnonzero(~there.all(axis=1)).tolist():
                exists[at] = there[at].tolist()
        values: list[list[Any]] = numbers.reshape(shape).tolist()
        places = itertools.product(slots, batch.reaches)
        return dict(zip(places, zip(values, exists, strict=True), strict=True))

    def _all_ranges(self, slots: int, reaches: Reaches) -> Ranges:
        """In the events of so many slots, the ranges of all rows for the first reach, then for the second, and so on;
        those of the first slot, then of the second.
        """
        if (slots, reaches) not in self._joined:
            each = [self._ranges[reach] for reach in reaches] * slots
            own = [of.own for of in each if of.own is not None]
            begins = np.repeat(np.arange(slots) * len(self._times), len(reaches) * len(self._moments))
            lo, hi = np.concatenate([of.lo for of in each]), _repeated(self._hi, len(each))
            self._joined[slots, reaches] = Ranges(lo + begins, hi + begins, np.concatenate(own) if own else None)
        return self._joined[slots, reaches]

    def _one_by_one(self, each: GroupMeasure) -> list[Any]:
        """A lookup, the newest value, a number of rows or of different values, and whatever is made of texts."""
        ranges = self._ranges[each.reach]
        joins = [False] * len(self._moments) if ranges.own is None else ranges.own.tolist()
        starts, convert, values = self._starts.tolist(), each.convert, []
        for at, (start, lo, hi) in enumerate(zip(starts, ranges.lo.tolist(), self._hi.tolist(), strict=True)):
            history, own = self._histories[at], self._own if joins[at] else None
            own_value = None if own is None or each.slot < 0 else own.values[each.slot][at]
            if history is not None and each.aggregate is not None:
                value = each.aggregate(history.values[each.slot], lo - start, hi - start, own_value)
            elif each.latest:
                past = Past(history, each.slot, lo - start, hi - start)
                value = latest_value(each.measure, past, int(self._moments[at]))
            else:
                past = Past(history, each.slot, lo - start, hi - start)
                enters, identity = (None, NO_IDENTITY) if own is None else (own.enters[at], own.identities[at])
                value = value_of(each.measure, past, enters, own_value, identity)
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
        result = np.empty((count, len(self._moments)), dtype=np.int64)
        starts, ends, flat = _repeated(self._starts, count), _repeated(self._ends, count), result.ravel()
        Bisection(self._times, len(flat)).until(starts, ends, np.concatenate(moments), out=flat)
        return list(result)

    def _range_values(self, batch: MeasureBatch, slots: Slots) -> RangeValues:
        if (slots, batch.reaches) not in self._values:
            columns = self._batch_columns(batch, slots)
            self._values[slots, batch.reaches] = RangeValues(
                columns,
                self._keys(len(slots)),
                valid=columns.valid,
                own_valid=columns.own_valid,
                is_float=batch.is_float,
                few=self._count(batch.reaches, slots) < _FEW,
            )
        return self._values[slots, batch.reaches]

    def _keys(self, slots: int) -> Ints:
        """The number of each event's entity, in the events of so many slots."""
        return np.repeat(np.arange(slots * len(self._entities)), self._sizes * slots)

    def _batch_columns(self, batch: MeasureBatch, slots: Slots) -> _Columns:
        if (slots, batch.reaches) not in self._columns:
            stored = [entity.events.slots[slot] for slot in slots for entity in self._entities]
            numbers = unpacked(b"".join([slot.data for slot in stored]), is_float=batch.is_float)
            valid = _valid(stored, self._sizes * len(slots))
            self._columns[slots, batch.reaches] = _Columns(len(slots), numbers, valid, *self._own_values(batch, slots))
        return self._columns[slots, batch.reaches]

    def _own_values(self, batch: MeasureBatch, slots: Slots) -> tuple[Numbers | None, Flags | None]:
        """The rows' own values, of each slot once for each window, and which there are; None where no row has one."""
        if self._own is None or self._entering is None:
            return None, None
        values = [self._own.values[slot] for slot in slots]
        exists = np.array([[value is not None for value in of_slot] for of_slot in values], dtype=np.bool_)
        if not exists.all():
            values = [[0 if value is None else value for value in of_slot] for of_slot in values]
        numbers: npt.NDArray[Any] = np.array(values, np.float64 if batch.is_float else np.int64)
        joins: Flags = exists.repeat(len(batch.reaches), axis=0).ravel()
        return numbers.repeat(len(batch.reaches), axis=0).ravel(), joins

    def _already_stored(self, own: OwnEvents) -> Flags:
        """Which rows are stored events of their entities."""
        rows = zip(self._histories, own.identities, strict=True)
        return np.array([history is not None and history.holds(identity) for history, identity in rows], np.bool_)


def _repeated(numbers: Ints, count: int) -> Ints:
    """Numbers so many times, faster than by `np.tile`."""
    return np.concatenate([numbers] * count)


def batch_measures(group: GroupReader) -> BatchedMeasures:
    of_slots: dict[tuple[int, Aggregation], list[GroupMeasure]] = {}
    row_by_row = []
    for each in group.measures:
        aggregation = _batched_aggregation(group, each)
        if aggregation is None:
            row_by_row.append(each)
        else:
            of_slots.setdefault((each.slot, aggregation), []).append(each)
    batches: dict[MeasureBatch, dict[int, Sequence[GroupMeasure]]] = {}
    for (slot, aggregation), measures in of_slots.items():
        reaches = tuple(dict.fromkeys(each.reach for each in measures))
        batch = MeasureBatch(aggregation, reaches, group.group.kinds[slot] == "float")
        batches.setdefault(batch, {})[slot] = measures
    return BatchedMeasures(batches, row_by_row)


def rows_to_batch(groups: Sequence[BatchedMeasures]) -> int:
    """From how many rows of a request on it is faster to compute them together."""
    calls = sum(len(group.batches) + len({each.slot for each in group.row_by_row}) for group in groups)
    slots = [measures for group in groups for of_slots in group.batches.values() for measures in of_slots.values()]
    count = sum(map(len, slots)) + sum(len(group.row_by_row) for group in groups)
    return -(-_CALL * calls // max(count, 1))


def _alike(spans: Sequence[_Span]) -> list[list[int]]:
    """The columns with these spans, by position, in parts whose values are of like size."""
    parts: list[list[int]] = []
    for at in sorted(range(len(spans)), key=lambda at: spans[at]):
        first = spans[parts[-1][0]] if parts else None
        if first and spans[at].low - first.low <= _APART and abs(spans[at].high - first.high) <= _APART:
            parts[-1].append(at)
        else:
            parts.append([at])
    return parts


def _batched_aggregation(group: GroupReader, each: GroupMeasure) -> Aggregation | None:
    """The aggregation over concatenated numbers; None for what is computed row by row."""
    of = each.measure
    if each.aggregate is None or not isinstance(of, Window) or of.agg not in _AGGREGATIONS:
        return None
    return None if typecode(group.group.kinds[each.slot]) is None else of.agg


def _valid(slots: Sequence[Slot], sizes: Sequence[int]) -> Flags | None:
    """Which values are not null; None where all are."""
    valid = [slot.valid for slot in slots]
    if valid.count(None) == len(valid):
        return None
    flags = [b"\x01" * size if each is None else each for each, size in zip(valid, sizes, strict=True)]
    return np.frombuffer(b"".join(flags), dtype=np.bool_)


def _converted(each: GroupMeasure, values: list[Any], exists: list[bool] | None) -> list[Any]:
    convert = each.convert
    if convert is not None and values and type(values[0]) is not convert:
        values = [convert(value) for value in values]
    if exists is None:
        return values
    return [value if there else None for value, there in zip(values, exists, strict=True)]

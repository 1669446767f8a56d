"""One group of windows and lookups offline: same source, same key, same time of entry, so one sort serves all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cumulant.core.expr import Column, Node
from cumulant.core.plan import FeaturePlan, Lookup, Source, Window
from cumulant.data.corrections.dated_rows import is_in_force
from cumulant.data.row_columns import FROM, UNTIL
from cumulant.features.definition.dtypes import Kind, resolve
from cumulant.features.offline.aggregations import AGGREGATIONS, Aggregate, EventValues, OwnRows
from cumulant.features.offline.frames import entry_times, key_codes, kinds, numbers, valid
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.kernel.ranges import LatestEvents, Numbers
from cumulant.features.offline.kernel.timeline import CHUNK, Flags, Ints, Timeline, grouped_order
from cumulant.features.offline.kernel.values import Ranges
from cumulant.features.offline.polars_compiler import TYPES, expression
from cumulant.features.offline.row_order import row_identities, tie_order
from cumulant.features.offline.versions import Epochs, has_versions

#: aggregations that take each range by itself
_SUMMED = frozenset({"count", "sum", "mean"})


def count_events(plan: FeaturePlan, group: MeasureGroup, past: pl.DataFrame) -> int:
    """How many events the windows of a group are made of: of corrected rows as many as epochs in which they count."""
    if not has_versions(past):
        return past.height
    (codes,) = key_codes([past], group.by)
    entering, moments = _entering_events(past, plan.sources[group.source], group, codes)
    epochs = Epochs(past[entering], codes[entering], int(codes.max(initial=0)))
    return int(epochs.copies(moments, group)[0].sum())


def _entering_events(past: pl.DataFrame, source: Source, group: MeasureGroup, codes: Ints) -> tuple[Ints, Ints]:
    """Which events have a key and ever enter, and when."""
    times = entry_times(past, source, group.entry)
    enters, has_key = valid(times), codes >= 0
    positions = np.flatnonzero(has_key if enters is None else has_key & enters)
    return positions, numbers(times)[positions]


class GroupWindows:
    """The events of a group against queries, which are rows at their prediction moments.

    `apart`: the queries are rows of the group's source apart from its history; each may count in its own windows.
    """

    def __init__(
        self, plan: FeaturePlan, group: MeasureGroup, past: pl.DataFrame, queries: pl.DataFrame, *, apart: bool
    ) -> None:
        self._plan, self._group, self._source = plan, group, plan.sources[group.source]
        self._past, self._queries = past, queries
        self._tie_order = tie_order(group, self._source, past) if group.ordered else None
        by = group.by
        same = past is queries
        event_codes, *rest = key_codes([past] if same else [past, queries], by)
        moments, known_moment = self._moments()
        query_codes = event_codes if same else rest[0]
        has_result = query_codes >= 0 if known_moment is None else (query_codes >= 0) & known_moment
        self._own_times: Ints | None = None
        self._values: dict[int, EventValues] = {}
        self._all_found = bool(has_result.all())
        if same and self._all_found and not has_versions(past) and self._events_at(moments):
            self._timeline = Timeline(event_codes, moments, tie_order=self._tie_order)
            self._query_order, self._times, self._found = self._timeline.order, self._timeline.times, has_result
            self._keys, self._hi = self._timeline.own()
            return
        if has_versions(past):
            top = max(int(event_codes.max(initial=0)), int(query_codes.max(initial=0)))
            self._timeline, epochs = self._versions(event_codes, top)
            query_codes = np.where(has_result, epochs.of(np.maximum(query_codes, 0), moments), -1)
        else:
            self._timeline = self._events(event_codes)
        query_codes = np.where(has_result, query_codes, int(query_codes.max(initial=0)) + 1)
        self._query_order = grouped_order(query_codes, moments)
        self._times = moments[self._query_order]
        self._found = has_result[self._query_order]
        self._keys = self._timeline.find(query_codes[self._query_order])
        self._hi = self._timeline.until(self._keys, self._times)
        if apart:
            self._own_times = self._own_entries()

    def results(self) -> dict[str, pl.Series]:
        """Each window and lookup as a column in the order of the queries."""
        columns: dict[str, pl.Series] = {}
        measures = self._group.measures
        for reach in dict.fromkeys(self._group.reach_us(measure) for measure in measures.values()):
            ranges = self._range(reach)
            for name, measure in measures.items():
                if self._group.reach_us(measure) == reach:
                    columns[name] = self._result(name, measure, ranges)
        return columns

    def _moments(self) -> tuple[Ints, Flags | None]:
        predict_at = self._plan.predict_at
        assert predict_at is not None
        column = self._queries[predict_at.column]
        return numbers(column) + predict_at.offset_us, valid(column)

    def _events_at(self, moments: Ints) -> bool:
        """Whether all events enter, each at the moment at the same place."""
        times = entry_times(self._past, self._source, self._group.entry)
        return not times.null_count() and np.array_equal(numbers(times), moments)

    def _events(self, event_codes: Ints) -> Timeline:
        """Events that ever enter: those with a key and all their times."""
        times = entry_times(self._past, self._source, self._group.entry)
        enters, has_key = valid(times), event_codes >= 0
        if enters is None and has_key.all():
            return Timeline(event_codes, numbers(times), tie_order=self._tie_order)
        positions = np.flatnonzero(has_key if enters is None else has_key & enters)
        return Timeline(event_codes[positions], numbers(times)[positions], positions, self._tie_order)

    def _versions(self, event_codes: Ints, top: int) -> tuple[Timeline, Epochs]:
        """Events that ever enter, by key and epoch; keys are numbered up to `top`."""
        positions, moments = _entering_events(self._past, self._source, self._group, event_codes)
        epochs = Epochs(self._past[positions], event_codes[positions], top)
        events, codes = epochs.spread(moments, self._group)
        return Timeline(codes, moments[events], positions[events], self._tie_order), epochs

    def _own_entries(self) -> Ints:
        """When each query itself enters, sorted as the queries; never where it does not or is in the history."""
        times = entry_times(self._queries, self._source, self._group.entry)
        joins = times.is_not_null().to_numpy()
        key = list(dict.fromkeys((*self._source.key, *self._group.by)))
        if self._source.key:
            entered = entry_times(self._past, self._source, self._group.entry).is_not_null()
            joins &= ~_is_in_history(self._queries.select(key), self._past.filter(entered), self._moments()[0])
        never = np.iinfo(np.int64).max
        return np.where(joins, numbers(times), never)[self._query_order]

    def _own_is_later(self, queries: Ints, events: Ints) -> Flags:
        """Of queries and events that enter at one moment, side by side: which queries come after the event.

        Their own times are equal: rows that wait for another column do not count in their own windows.
        """
        if not self._source.key:
            return np.ones(len(queries), dtype=np.bool_)
        own = row_identities(self._queries.select(self._source.key)[self._query_order[queries]], self._source)
        return own >= row_identities(self._past.select(self._source.key)[events], self._source)

    def _range(self, span_us: int | None) -> Ranges:
        """The events of each query known in (t - span, t]; without a span, all up to t."""
        lo = self._keys.starts if span_us is None else self._timeline.until(self._keys, self._times - span_us)
        own = None
        if self._own_times is not None:
            own = self._found & (self._own_times <= self._times)
            if span_us is not None:
                own &= self._own_times > self._times - span_us
        return Ranges(lo, self._hi, own)

    def _value(self, slot: int) -> EventValues:
        if slot not in self._values:
            node, timeline, own = self._group.values[slot], self._timeline, None
            if self._own_times is not None:
                own = evaluate_node(node, self._queries, kinds(self._plan.request)).gather(self._query_order)
            series = evaluate_node(node, self._past, kinds(self._source.fields))
            keys = self._keys.numbers
            self._values[slot] = EventValues(series, timeline.order, own, event_keys=timeline.keys, query_keys=keys)
        return self._values[slot]

    def _result(self, name: str, measure: Window | Lookup, ranges: Ranges) -> pl.Series:
        slot = self._group.slots[name]
        if self._group.takes_latest_event(measure):
            return self._latest_event(self._value(slot), ranges, measure)
        if isinstance(measure, Lookup):
            return self._newest(self._value(slot), ranges, skip_null=False)
        if measure.value is None:
            return self._series(ranges.count, None)
        values = self._value(slot)
        if measure.agg in _SUMMED and self._own_times is None:
            return self._by_chunk(AGGREGATIONS[measure.agg], values, ranges)
        if measure.agg == "last":
            return self._newest(values, ranges, skip_null=True)
        result, has_result = AGGREGATIONS[measure.agg](values, ranges)
        series = self._series(result, has_result)
        return _restore_type(series, values.series.dtype) if measure.agg in {"min", "max"} else series

    def _newest(self, values: EventValues, ranges: Ranges, *, skip_null: bool) -> pl.Series:
        own = None if self._own_times is None else OwnRows(self._own_times, self._own_is_later)
        position, has_result = values.newest(ranges, self._timeline.times, own, skip_null=skip_null)
        source = values.series if values.own is None else pl.concat([values.series, values.own])
        return source.gather(self._series(position, has_result))

    def _latest_event(self, values: EventValues, ranges: Ranges, measure: Window | Lookup) -> pl.Series:
        """As `_newest`, in the order of event times. No query's own row joins: it waits for another column."""
        if isinstance(measure, Window):
            position, has_result = self._latest_events.in_ranges(ranges.lo, ranges.hi, values.valid)
        else:
            position, has_result = self._latest_events.before(ranges.lo, ranges.hi)
            if measure.within_us is not None and len(self._timeline):
                has_result = has_result & (self._event_times[position] >= self._times - measure.within_us)
        if not len(self._timeline):
            return values.series.gather(self._series(np.zeros_like(position), has_result))
        return values.series.gather(self._series(self._timeline.order[position], has_result))

    @cached_property
    def _event_times(self) -> Ints:
        """Of the sorted events."""
        assert self._source.event_time is not None
        return numbers(self._past[self._source.event_time])[self._timeline.order]

    @cached_property
    def _latest_events(self) -> LatestEvents:
        return LatestEvents(self._timeline.keys, self._event_times)

    def _by_chunk(self, aggregate: Aggregate, values: EventValues, ranges: Ranges) -> pl.Series:
        """`_series` of an aggregation, for so many queries at a time that their numbers stay in the caches."""
        column = _Column(self._query_order, None if self._all_found else self._found)
        for begin in range(0, max(len(ranges.lo), 1), CHUNK):
            part = slice(begin, begin + CHUNK)
            column.put(part, *aggregate(values, Ranges(ranges.lo[part], ranges.hi[part], None)))
        return column.series()

    def _series(self, values: Numbers, has_result: Flags | None) -> pl.Series:
        """A result in the order of the queries; null, too, for queries without a key or a moment."""
        column = _Column(self._query_order, None if self._all_found else self._found)
        column.put(slice(None), values, has_result)
        return column.series()


class _Column:
    """A result in the order of the queries (`order`), null where `found` (None: all) is false or it is not finite."""

    def __init__(self, order: Ints, has_result: Flags | None) -> None:
        self._order, self._found = order, has_result
        self._values: npt.NDArray[Any] | None = None
        self._flags: Flags | None = None
        self._whole = True

    def put(self, part: slice, values: Numbers, has_result: Flags | None) -> None:
        """The numbers of a part of the sorted queries, and which are there; None for all."""
        order = self._order[part]
        if self._values is None:
            self._values = np.empty(len(self._order), dtype=values.dtype)
        if self._found is not None:
            has_result = self._found[part] if has_result is None else has_result & self._found[part]
        if values.dtype == np.float64:
            stands = np.isfinite(values)
            if has_result is not None:
                stands &= has_result
            if not stands.all():
                self._whole, values = False, np.where(stands, values, np.nan)
        elif has_result is not None and not has_result.all():
            if self._flags is None:
                self._flags = np.ones(len(self._order), dtype=np.bool_)
            self._flags[order] = has_result
        self._values[order] = values

    def series(self) -> pl.Series:
        if self._flags is None:
            return pl.Series(values=self._values, nan_to_null=not self._whole)
        columns = pl.DataFrame({"value": self._values, "found": self._flags})
        return columns.select(pl.when("found").then("value"))["value"]


def _is_in_history(rows: pl.DataFrame, history: pl.DataFrame, moments: Ints) -> Flags:
    """Which rows the history holds, in a version in force at the row's moment; one with a null is never there."""
    rows = rows.with_row_index("__at")
    if has_versions(history):
        versions = history.select(*rows.columns[1:], FROM, UNTIL)
        marked = rows.with_columns(pl.Series("__moment", moments)).join(versions, on=rows.columns[1:])
        marked = marked.filter(is_in_force(pl.col("__moment")))
    else:
        marked = rows.join(history.select(rows.columns[1:]).unique(), on=rows.columns[1:], how="semi")
    result = np.zeros(rows.height, dtype=np.bool_)
    result[marked["__at"].to_numpy()] = True
    return result


def evaluate_node(node: Node, frame: pl.DataFrame, columns: Mapping[str, Kind]) -> pl.Series:
    """The values of an expression over the raw columns of `frame`."""
    if isinstance(node, Column):
        return frame[node.name]
    value = expression(node, columns).cast(TYPES[resolve(node, columns)[1]])
    series = frame.select(value.alias("value"))["value"]
    return series if len(series) == frame.height else series.new_from_index(0, frame.height)


def _restore_type(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Times and dates from their numbers."""
    if dtype == pl.Date:
        return series.cast(pl.Int32).cast(pl.Date)
    return series.cast(dtype) if isinstance(dtype, pl.Datetime) else series

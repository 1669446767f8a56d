"""One group of windows and lookups offline: same source, same key, same time of entry, so one sort serves all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from cumulant.core.expr import Column, Node
from cumulant.core.plan import FeaturePlan, Lookup, Source, Window
from cumulant.features import known
from cumulant.features.dtypes import Kind, resolve
from cumulant.features.frames import codes, entry_times, key_codes, kinds, numbers, valid
from cumulant.features.kernel.ranges import Distinct, extremes, latest
from cumulant.features.kernel.spread import deviations
from cumulant.features.kernel.sums import Floats, PrefixSums, int_prefix
from cumulant.features.kernel.timeline import Ints, Timeline, grouped_order
from cumulant.features.known import Entry
from cumulant.features.polars import TYPES, expression

Flags = npt.NDArray[np.bool_]


class Ranges:
    """For each query, in the group's order, the sorted events [lo, hi) of one window, and whether itself joins."""

    def __init__(self, lo: Ints, hi: Ints, own: Flags | None) -> None:
        self.lo = lo
        self.hi = hi
        self.own = own


class Values:
    """One value of the group's events in their sorted order, and of the queries in theirs."""

    def __init__(self, series: pl.Series, order: Ints, own: pl.Series | None) -> None:
        self.series = series
        self.order = order
        self.own_series = own
        self.valid = _at(valid(series), order)
        self.own_valid = None if own is None else own.is_not_null().to_numpy()

    @property
    def kind_is_float(self) -> bool:
        return self.series.dtype == pl.Float64

    def floats(self) -> Floats:
        """0 for null."""
        return _floats(self.series)[self.order]

    def ints(self) -> Ints:
        """0 for null."""
        return numbers(self.series)[self.order]


class Group:
    """The events of a source by key and time of entry, against queries (rows at their prediction moments).

    `apart`: the queries are rows of this source given apart from its history, so each may count in its own windows.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        source: Source,
        by: tuple[str, ...],
        entry: Entry,
        past: pl.DataFrame,
        queries: pl.DataFrame,
        *,
        apart: bool,
    ) -> None:
        self._plan, self._source, self._entry = plan, source, entry
        self._past, self._queries = past, queries
        same = past is queries
        event_codes, *rest = key_codes([past] if same else [past, queries], by)
        moments, known_moment = self._moments()
        self._timeline = self._events(event_codes)
        query_codes = event_codes if same else rest[0]
        found = query_codes >= 0 if known_moment is None else (query_codes >= 0) & known_moment
        query_codes = np.where(found, query_codes, int(query_codes.max(initial=0)) + 1)
        self._query_order = grouped_order(query_codes, moments)
        self._codes, self._times = query_codes[self._query_order], moments[self._query_order]
        self._found = found[self._query_order]
        self._hi = self._timeline.until(self._codes, self._times)
        self._own_times = self._own_entries(by) if apart else None
        self._ranges: dict[int | None, Ranges] = {}
        self._values: dict[Node, Values] = {}

    def results(self, measures: Mapping[str, Window | Lookup]) -> dict[str, pl.Series]:
        """Each window and lookup as a column in the order of the queries."""
        return {name: self._result(measure) for name, measure in measures.items()}

    def _moments(self) -> tuple[Ints, Flags | None]:
        predict_at = self._plan.predict_at
        assert predict_at is not None
        column = self._queries[predict_at.column]
        return numbers(column) + predict_at.offset_us, valid(column)

    def _events(self, event_codes: Ints) -> Timeline:
        """Events that ever enter: those with a key and all their times."""
        times = entry_times(self._past, self._source, self._entry)
        enters, has_key = valid(times), event_codes >= 0
        if enters is None and has_key.all():
            return Timeline(event_codes, numbers(times))
        kept = np.flatnonzero(has_key if enters is None else has_key & enters)
        return Timeline(event_codes[kept], numbers(times)[kept], kept)

    def _own_entries(self, by: tuple[str, ...]) -> Ints | None:
        """When each query itself enters, sorted as the queries; never where it does not or is in the history."""
        if self._entry.columns:
            return None
        times = entry_times(self._queries, self._source, self._entry)
        joins = times.is_not_null().to_numpy()
        key = [column for column in dict.fromkeys((*self._source.key, *by))]
        if self._source.key:
            joins &= ~_among(self._queries.select(key), self._past.select(key))
        never = np.iinfo(np.int64).max
        return np.where(joins, numbers(times), never)[self._query_order]

    def _range(self, span_us: int | None) -> Ranges:
        """The events of each query known in (t - span, t]; without a span, all up to t."""
        if span_us not in self._ranges:
            if span_us is None:
                lo = self._timeline.starts(self._codes)
            else:
                lo = self._timeline.until(self._codes, self._times - span_us)
            own = None
            if self._own_times is not None:
                own = self._found & (self._own_times <= self._times)
                if span_us is not None:
                    own &= self._own_times > self._times - span_us
            self._ranges[span_us] = Ranges(lo, self._hi, own)
        return self._ranges[span_us]

    def _value(self, node: Node) -> Values:
        if node not in self._values:
            series = _evaluated(node, self._past, kinds(self._source.fields))
            own = None
            if self._own_times is not None:
                own = _evaluated(node, self._queries, kinds(self._plan.request)).gather(self._query_order)
            self._values[node] = Values(series, self._timeline.order, own)
        return self._values[node]

    def _result(self, measure: Window | Lookup) -> pl.Series:
        if isinstance(measure, Lookup):
            within = None if measure.within_us is None else measure.within_us + 1
            return self._newest(self._value(Column(measure.column)), self._range(within), skip_null=False)
        ranges = self._range(measure.span_us)
        if measure.value is None:
            return self._ints(_counted(ranges, None), self._found)
        values = self._value(measure.value)
        if measure.agg == "last":
            return self._newest(values, ranges, skip_null=True)
        return _AGGREGATIONS[measure.agg](self, values, ranges)

    # results back in the order of the queries
    def _ints(self, values: Ints, known_values: Flags) -> pl.Series:
        result = np.empty(len(values), dtype=np.int64)
        result[self._query_order] = values
        series = pl.Series(result)
        if known_values.all():
            return series
        flags = np.empty(len(values), dtype=np.bool_)
        flags[self._query_order] = known_values
        return pl.DataFrame({"value": series, "known": flags}).select(pl.when("known").then("value"))["value"]

    def _floats(self, values: Floats, known_values: Flags) -> pl.Series:
        values[~(known_values & np.isfinite(values))] = np.nan
        result = np.empty(len(values))
        result[self._query_order] = values
        return pl.Series(result, nan_to_null=True)

    def _newest(self, values: Values, ranges: Ranges, *, skip_null: bool) -> pl.Series:
        """The value of the newest event of each range; of those at the same time, the later row."""
        if skip_null and values.valid is not None:
            at = latest(values.valid, ranges.hi)
        else:
            at = ranges.hi - 1
        found = (at >= ranges.lo) & self._found
        position = self._timeline.order[np.maximum(at, 0)] if len(self._timeline) else np.zeros(len(at), dtype=np.int64)
        source = values.series
        if ranges.own is not None and values.own_series is not None and self._own_times is not None:
            times = self._timeline.times[np.maximum(at, 0)] if len(self._timeline) else self._own_times
            own = ranges.own & (~found | (self._own_times >= times))
            if skip_null and values.own_valid is not None:
                own &= values.own_valid
            position = np.where(own, len(source) + np.arange(len(own)), position)
            source, found = pl.concat([source, values.own_series]), found | own
        picked = self._ints(position, found)
        return source.gather(picked)


def _among(rows: pl.DataFrame, history: pl.DataFrame) -> Flags:
    """Which rows the history holds; one with a null is never among them."""
    marked = rows.with_row_index("__at").join(history.unique(), on=history.columns, how="semi")
    result = np.zeros(rows.height, dtype=np.bool_)
    result[marked["__at"].to_numpy()] = True
    return result


def _evaluated(node: Node, frame: pl.DataFrame, columns: Mapping[str, Kind]) -> pl.Series:
    if isinstance(node, Column):
        return frame[node.name]
    kind = resolve(node, columns)[1]
    value = expression(node, columns).cast(TYPES[kind])
    series = frame.select(value.alias("value"))["value"]
    return series if len(series) == frame.height else series.new_from_index(0, frame.height)


def _at(flags: Flags | None, order: Ints) -> Flags | None:
    return None if flags is None else flags[order]


def _floats(series: pl.Series) -> Floats:
    floats = series.cast(pl.Float64)
    return (floats.fill_null(0.0) if floats.null_count() else floats).to_numpy()


def _own_flags(values: Values, ranges: Ranges) -> Flags | None:
    """Where the query's own value joins."""
    if ranges.own is None or values.own_valid is None:
        return None
    return ranges.own & values.own_valid


def _counted(ranges: Ranges, values: Values | None) -> Ints:
    """How many events of each range have a value."""
    if values is None or values.valid is None:
        count = ranges.hi - ranges.lo
    else:
        prefix = int_prefix(values.valid.astype(np.int64))
        count = prefix[ranges.hi] - prefix[ranges.lo]
    own = ranges.own if values is None else _own_flags(values, ranges)
    return count if own is None else count + own


def _count(group: Group, values: Values, ranges: Ranges) -> pl.Series:
    return group._ints(_counted(ranges, values), group._found)


def _summed(values: Values, ranges: Ranges) -> Floats | Ints:
    own = _own_flags(values, ranges)
    own_series = values.own_series
    if values.kind_is_float:
        extra = None if own_series is None else _floats(own_series)
        return PrefixSums(values.floats(), extra).between(ranges.lo, ranges.hi, with_extra=own)
    prefix = int_prefix(values.ints())
    total = prefix[ranges.hi] - prefix[ranges.lo]
    if own is not None and own_series is not None:
        total = total + np.where(own, numbers(own_series), 0)
    return total


def _sum(group: Group, values: Values, ranges: Ranges) -> pl.Series:
    total, found = _summed(values, ranges), group._found & (_counted(ranges, values) > 0)
    return group._floats(total, found) if values.kind_is_float else group._ints(total, found)  # type: ignore[arg-type]


def _mean(group: Group, values: Values, ranges: Ranges) -> pl.Series:
    count = _counted(ranges, values)
    total = _summed(values, ranges)
    mean = np.divide(total, count, out=np.zeros(len(count)), where=count > 0)
    return group._floats(mean, group._found & (count > 0))


def _compressed(values: Values, ranges: Ranges) -> tuple[Ints, Ranges]:
    """Positions of the events with a value, and the ranges among these alone."""
    if values.valid is None:
        return np.arange(len(values.order)), ranges
    prefix = int_prefix(values.valid.astype(np.int64))
    return np.flatnonzero(values.valid), Ranges(prefix[ranges.lo], prefix[ranges.hi], ranges.own)


def _std(group: Group, values: Values, ranges: Ranges) -> pl.Series:
    at, ranges = _compressed(values, ranges)
    floats, keys = values.floats()[at], group._timeline.codes[at]
    starts = np.searchsorted(keys, keys, side="left")
    own = _own_flags(values, ranges)
    size = len(ranges.lo)
    own_values = np.zeros(size) if values.own_series is None else _floats(values.own_series)
    flags = np.zeros(size, dtype=np.bool_) if own is None else own
    return group._floats(deviations(floats, starts, ranges.lo, ranges.hi, own_values, flags), group._found)


def _extreme(*, largest: bool) -> Callable[[Group, Values, Ranges], pl.Series]:
    def aggregate(group: Group, values: Values, ranges: Ranges) -> pl.Series:
        at, ranges = _compressed(values, ranges)
        found, own = group._found & (ranges.hi > ranges.lo), _own_flags(values, ranges)
        if values.kind_is_float:
            floats = extremes(values.floats()[at], ranges.lo, ranges.hi, largest=largest)
            if own is not None and values.own_series is not None:
                floats = _joined(floats, _floats(values.own_series), found, own, largest=largest)
                found = found | own
            return group._floats(floats, found)
        ints = extremes(values.ints()[at], ranges.lo, ranges.hi, largest=largest)
        if own is not None and values.own_series is not None:
            ints = _joined(ints, numbers(values.own_series), found, own, largest=largest)
            found = found | own
        return _restored(group._ints(ints, found), values.series.dtype)

    return aggregate


def _joined(found_values: np.ndarray, own_values: np.ndarray, found: Flags, own: Flags, *, largest: bool) -> np.ndarray:  # type: ignore[type-arg]
    """The extreme of a range and of the query's own value."""
    both = (np.maximum if largest else np.minimum)(found_values, own_values)
    return np.where(own, np.where(found, both, own_values), found_values)


def _restored(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Times and dates from their numbers."""
    if dtype == pl.Date:
        return series.cast(pl.Int32).cast(pl.Date)
    return series.cast(dtype) if isinstance(dtype, pl.Datetime) else series


def _distinct(group: Group, values: Values, ranges: Ranges) -> pl.Series:
    series, own_series = values.series, values.own_series
    whole = series if own_series is None else pl.concat([series, own_series])
    numbered = codes(whole)[0]
    keys = group._timeline.codes
    distinct = Distinct(keys, numbered[: len(series)][values.order])
    count = distinct.between(ranges.lo, ranges.hi)
    own = _own_flags(values, ranges)
    if own is not None:
        own_codes = numbered[len(series) :]
        count = count + (own & ~distinct.holds(group._codes, own_codes, ranges.lo, ranges.hi))
    return group._ints(count, group._found)


_AGGREGATIONS: dict[str, Callable[[Group, Values, Ranges], pl.Series]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "min": _extreme(largest=False),
    "max": _extreme(largest=True),
    "std": _std,
    "distinct": _distinct,
}

"""Incremental computation: only features that added rows may change are computed, all others reused.

An added event changes queries of its key from its entry to the end of the longest window. Those queries, and the added
rows of the entity source, are computed from all events of their keys in their windows, so that each value is bit for
bit the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import FeaturePlan, Window
from cumulant.core.system.memory import resident_memory
from cumulant.data.parts.added_rows import SharedRows
from cumulant.data.row_columns import ROW
from cumulant.features.offline.frames import entry_time, key_codes, kinds, numbers, read_fields, scan_fields
from cumulant.features.offline.groups import MeasureGroup, event_columns, groups_of
from cumulant.features.offline.kernel.timeline import Timeline, grouped_order
from cumulant.features.offline.key_partitions import row_columns
from cumulant.features.offline.memory_need import SourceSize, group_need, output_width
from cumulant.features.offline.offline import with_expressions
from cumulant.features.offline.partitions import LEAST_MEMORY, source_size
from cumulant.features.offline.windows import GroupWindows

_ENTRY, _MOMENT, _FIRST, _LAST, _PART, _OLDER = "__entry", "__moment", "__first", "__last", "__partition", "__older"
#: of the memory that is free to use: the rows to compute with their features; the events and queries of one partition
_ROWS, _TARGET = 0.3, 0.35
#: so many times the source is read for one group at most
_MOST_PARTS = 64
#: from this share of rows on, computing all of them costs less
_MOST_SHARE = 0.5
#: bytes of a key's column, and of what is beside them, while queries are searched
_CELL, _QUERY = 17, 120
#: rows of a table in memory at a time
_BLOCK = 131_072


class GrownSource(NamedTuple):
    """The rows of a source, and those of them that are new; `added` is how many these are at most."""

    every: pl.LazyFrame
    new: pl.LazyFrame
    added: int


def changed_features(plan: FeaturePlan, sources: Mapping[str, GrownSource], *, memory: int) -> pl.DataFrame | None:
    """The features of the rows that are new, or that new rows may change, as `compute`.

    None where computing all rows costs less, or the memory is too little for this way.

    Raises:
        DataError: as `compute`.
    """
    sizes = {name: source_size(plan, name, {name: sources[name].every}) for name in plan.sources}
    run = _Run(plan, sources, sizes, max(memory - resident_memory(), LEAST_MEMORY))
    rows = run.rows()
    if rows is None:
        return None
    measured: dict[str, pl.Series] = {}
    for group in groups_of(plan):
        columns = run.results(group, rows)
        if columns is None:
            return None
        measured |= columns
    fields, names = kinds(plan.sources[plan.entity].fields), row_columns(plan)
    return with_expressions(plan, {name: fields[name] for name in names}, rows.select(*names, ROW), measured)


def unchanged_rows(shared: Sequence[SharedRows], changed: pl.DataFrame) -> int:
    """The position before which no row was changed, added or moved."""
    first = shared[0].rows if shared and shared[0].before == shared[0].now == 0 else 0
    position: int = min([first, *changed[ROW].head(1)])
    return position


def with_changes(stored: pl.LazyFrame, shared: Sequence[SharedRows], changed: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Rows of an earlier feature table under their present positions, with the changed ones, block by block."""
    rows = stored.select(pl.len()).collect().item()
    for begin in range(0, rows, _BLOCK):
        block = stored.slice(begin, _BLOCK).collect().with_columns(_present_position(shared))
        due = changed.filter(pl.col(ROW) <= block[ROW][-1])
        changed = changed[due.height :]
        yield pl.concat([block.join(due, on=ROW, how="anti"), due]).sort(ROW)
    yield changed


def _present_position(shared: Sequence[SharedRows]) -> pl.Expr:
    """The present position of a row of the earlier snapshot."""
    befores = pl.Series([run.before for run in shared], dtype=pl.Int64)
    shifts = pl.Series([run.now - run.before for run in shared], dtype=pl.Int64)
    row = pl.col(ROW)
    return row + row.map_batches(lambda at: shifts.gather(befores.search_sorted(at, side="right") - 1), pl.Int64)


class _Run:
    """One computation: the inputs of its steps."""

    def __init__(
        self, plan: FeaturePlan, sources: Mapping[str, GrownSource], sizes: Mapping[str, SourceSize], free: float
    ) -> None:
        self._plan, self._sources, self._sizes, self._free = plan, sources, sizes, free
        self._entity = plan.sources[plan.entity]

    def rows(self) -> pl.DataFrame | None:
        """The rows to compute, in order, with the columns that their features need; None where they are too many."""
        if not self._new_rows_fit():
            return None
        added = self._sources[self._plan.entity].new
        new = self._read(self._plan.entity, added)
        positions = [new.select(ROW)]
        for group in groups_of(self._plan):
            reached = self._reached(group)
            if reached is None:
                return None
            positions.append(reached)
        places = pl.concat(positions).unique()
        if not self._are_few(places.height):
            return None
        wanted = {name for group in groups_of(self._plan) for name in group.by} | set(row_columns(self._plan))
        if self._plan.predict_at is not None:
            wanted.add(self._plan.predict_at.column)
        columns = [*sorted(wanted), ROW]
        if places.height == new.height:
            return new.select(columns)
        every = scan_fields(self._plan.entity, self._entity.fields, self._sources[self._plan.entity].every)
        return every.select(columns).join(places.lazy(), on=ROW, how="semi", maintain_order="left").collect()

    def _are_few(self, count: int) -> bool:
        entity = self._sizes[self._plan.entity]
        width = entity.width + output_width(self._plan, entity.width)
        return count <= entity.rows * _MOST_SHARE and count * width <= self._free * _ROWS

    def _new_rows_fit(self) -> bool:
        added = {name: source.added for name, source in self._sources.items()}
        if not self._are_few(added[self._plan.entity]):
            return False
        return (
            max(added[name] * (self._sizes[name].width + _QUERY) for name in self._plan.sources) <= self._free * _ROWS
        )

    def _read(self, name: str, frame: pl.LazyFrame) -> pl.DataFrame:
        return read_fields(name, self._plan.sources[name].fields, frame)

    def _reached(self, group: MeasureGroup) -> pl.DataFrame | None:
        """The positions of rows with a new event in one of their windows or lookups; None where they are too many."""
        predict_at, source = self._plan.predict_at, self._plan.sources[group.source]
        assert predict_at is not None
        keys = _keys(group, self._plan)
        events = scan_fields(group.source, source.fields, self._sources[group.source].new)
        entering = events.select(*keys, entry_time(source, group.entry).alias(_ENTRY)).drop_nulls().collect()
        if not entering.height:
            return pl.DataFrame(schema={ROW: pl.Int64})
        bounds = entering.lazy().group_by(_names(keys)).agg(pl.min(_ENTRY).alias(_FIRST), pl.max(_ENTRY).alias(_LAST))
        rows = scan_fields(self._plan.entity, self._entity.fields, self._sources[self._plan.entity].every)
        moment = pl.col(predict_at.column).cast(pl.Int64) + predict_at.offset_us
        queries = rows.select(*keys, moment.alias(_MOMENT), ROW).drop_nulls()
        queries = queries.join(bounds, on=_names(keys), how="inner")
        whole = _takes_whole_key(group)
        if not whole:
            queries = queries.filter(pl.col(_MOMENT) >= pl.col(_FIRST))
        if not whole and not group.unlimited:
            queries = queries.filter(pl.col(_MOMENT) - group.span_us < pl.col(_LAST))
        queries = queries.select(*_names(keys), _MOMENT, ROW)
        width = _QUERY + _CELL * len(group.by)
        if self._sizes[self._plan.entity].rows * width > self._free * _ROWS:
            count = queries.select(pl.len()).collect(engine="streaming").item()
            if count * width > self._free * _ROWS:
                return None
        seen = queries.collect()
        return seen.select(ROW) if whole else _with_event(group, entering, seen, _names(keys))

    def results(self, group: MeasureGroup, rows: pl.DataFrame) -> dict[str, pl.Series] | None:
        """The windows and lookups of a group for these rows, in their order; None where memory is too little."""
        keyed = rows.lazy().with_columns(_keys(group, self._plan))
        names = [f"__key{number}" for number in range(len(group.by))]
        queries = keyed.collect()
        parts = self._parts(group, queries, names)
        if parts is None:
            return None
        if parts == 1:
            return self._computed(group, queries, names)
        number = pl.struct(names).hash() % parts
        split = queries.with_columns(number.alias(_PART)).partition_by(_PART, include_key=False)
        frames = (pl.DataFrame({ROW: part[ROW], **self._computed(group, part, names)}) for part in split)
        whole = pl.concat(frames).sort(ROW)
        return {name: whole[name] for name in group.measures}

    def _parts(self, group: MeasureGroup, queries: pl.DataFrame, names: list[str]) -> int | None:
        """In how many partitions of keys the group is computed."""
        size, width = self._sizes[group.source], self._sizes[group.source].width
        need = group_need(group, size, SourceSize(queries.height, 0)) + size.rows * width
        if need > self._free * _TARGET:
            count = self._events(group, queries, names).select(pl.len()).collect(engine="streaming").item()
            need = group_need(group, SourceSize(count, 0), SourceSize(queries.height, 0)) + count * width
        parts = max(math.ceil(need / (self._free * _TARGET)), 1)
        return parts if parts <= _MOST_PARTS else None

    def _computed(self, group: MeasureGroup, queries: pl.DataFrame, names: list[str]) -> dict[str, pl.Series]:
        events = self._events(group, queries, names).collect()
        return GroupWindows(self._plan, group, events, queries.drop(names), apart=False).results()

    def _events(self, group: MeasureGroup, queries: pl.DataFrame, names: list[str]) -> pl.LazyFrame:
        """The events that measures of the queries cover, in order; of some aggregations all of a key."""
        predict_at, source = self._plan.predict_at, self._plan.sources[group.source]
        assert predict_at is not None
        columns = sorted(event_columns(group, source))
        moment = pl.col(predict_at.column).cast(pl.Int64) + predict_at.offset_us
        moments = queries.select(*names, moment.alias(_MOMENT)).drop_nulls()
        ends = moments.group_by(names).agg(pl.min(_MOMENT).alias(_FIRST), pl.max(_MOMENT).alias(_LAST))
        every, bounds = self._every(group, ends).select(columns), ends.lazy()
        every = every.with_columns(*_keys(group, self._plan), entry_time(source, group.entry).alias(_ENTRY))
        if _takes_whole_key(group) or group.takes_latest_ever:
            return every.join(bounds, on=names, how="semi", maintain_order="left").select(columns)
        first = pl.col(_FIRST) - group.span_us + 1
        if group.unlimited:
            before = every.join(bounds, on=names).filter(pl.col(_ENTRY) < first)
            older = before.group_by(names).agg(pl.max(_ENTRY).alias(_OLDER))
            bounds = bounds.join(older, on=names, how="left")
            first = pl.coalesce(_OLDER, first)
        events = every.join(bounds, on=names, how="inner", maintain_order="left")
        return events.filter(pl.col(_ENTRY).is_between(first, pl.col(_LAST))).select(columns)

    def _every(self, group: MeasureGroup, ends: pl.DataFrame) -> pl.LazyFrame:
        """The rows of a group's source; those before all windows are left out where their event time excludes them."""
        source = self._plan.sources[group.source]
        rows = scan_fields(group.source, source.fields, self._sources[group.source].every)
        if _takes_whole_key(group) or group.unlimited or group.entry.columns or not ends.height:
            return rows
        assert source.event_time is not None
        first = ends[_FIRST].min() - group.span_us - group.entry.delay_us  # type: ignore[operator]
        return rows.filter(pl.col(source.event_time) > pl.lit(first).cast(pl.Datetime("us", "UTC")))


def _takes_whole_key(group: MeasureGroup) -> bool:
    """A deviation is scaled by all values of its key, so that its last bit may depend on each of them."""
    return any(isinstance(measure, Window) and measure.agg == "std" for measure in group.measures.values())


def _keys(group: MeasureGroup, plan: FeaturePlan) -> list[pl.Expr]:
    """The columns of a key as columns to join by; -0.0 is 0.0."""
    fields = kinds(plan.sources[group.source].fields)
    return [
        (pl.col(name) + 0.0 if fields[name] == "float" else pl.col(name)).alias(f"__key{number}")
        for number, name in enumerate(group.by)
    ]


def _names(keys: Sequence[pl.Expr]) -> list[str]:
    return [key.meta.output_name() for key in keys]


def _with_event(group: MeasureGroup, events: pl.DataFrame, queries: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The positions of queries that see one of the events."""
    event_codes, query_codes = key_codes([events, queries], names)
    moments = numbers(queries[_MOMENT])
    order = grouped_order(query_codes, moments)
    timeline = Timeline(event_codes, numbers(events[_ENTRY]))
    keys, moments = timeline.find(query_codes[order]), moments[order]
    first = keys.starts if group.unlimited else timeline.until(keys, moments - group.span_us)
    return queries[np.sort(order[timeline.until(keys, moments) > first])].select(ROW)

"""The offline engine for more rows than memory holds: the same features, bit for bit, in the same order.

A window or lookup reads rows of one key only. So each group's events and queries are partitioned by the hash of their
key and set aside on disk; one partition after the other is computed; and the results are merged in blocks of rows, in
the order of the entity source.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from cumulant.core.errors import DataError, UsageError
from cumulant.core.expr import columns as columns_of
from cumulant.core.memory import raise_limit, resident_memory
from cumulant.core.plan import FeaturePlan
from cumulant.data.snapshot import FROM
from cumulant.data.spill import Spill, spill_in
from cumulant.features.frames import ROW, kinds, reading
from cumulant.features.groups import Group, event_columns, groups_of
from cumulant.features.memory_need import Size, group_need, output_width, whole_need
from cumulant.features.offline import compute, with_expressions
from cumulant.features.windows import GroupWindows

_PARTITION = "__partition"
_SAMPLE = 65_536
#: of the memory that is free to use: one partition of a group, and the most that it may take; one block of rows
_TARGET, _MOST, _BLOCK = 0.35, 0.8, 0.15
#: whatever is free, so much is used: less would be spent on files
LEAST_MEMORY = 32 << 20
_LEAST_ROWS, _MOST_ROWS = 10_000, 2_000_000
#: how often a partition that is too large is split before its key is named
_LEVELS = 3
_GIB = 1 << 30


class Layout(NamedTuple):
    """Rows of a block, and the bytes that a partition should and may take."""

    rows: int
    target: float
    most: float


def compute_within(
    plan: FeaturePlan, frames: Mapping[str, pl.LazyFrame | pl.DataFrame], *, memory: int, scratch: Path
) -> pl.DataFrame | Iterator[pl.DataFrame]:
    """The features of every row of the entity source, with about `memory` bytes held by this process.

    Returns:
        The table where it can be computed at once, or rows have versions, whose queries are others than the events;
        else its rows block by block, which set rows aside under `scratch`.

    Raises:
        DataError: as `compute`.
        UsageError: one key has more rows than fit.
        StorageError: the disk is full.
    """
    sizes = {name: source_size(plan, name, frames) for name in plan.sources}
    free = max(memory - resident_memory(), LEAST_MEMORY)
    versioned = any(FROM in frame.collect_schema() for frame in frames.values())
    if versioned or whole_need(plan, sizes) <= free:
        return compute(plan, frames)
    rows = int(free * _BLOCK / (2 * output_width(plan, sizes[plan.entity].width)))
    layout = Layout(min(max(rows, _LEAST_ROWS), _MOST_ROWS), free * _TARGET, free * _MOST)
    return compute_partitioned(plan, frames, layout, sizes=sizes, scratch=scratch)


def compute_partitioned(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    layout: Layout,
    *,
    sizes: Mapping[str, Size],
    scratch: Path,
) -> Iterator[pl.DataFrame]:
    """`compute`, block by block."""
    if not sizes[plan.entity].rows:
        yield compute(plan, {name: frame.lazy().head(0) for name, frame in frames.items()})
        return
    with spill_in(scratch) as spill:
        blocks = math.ceil(sizes[plan.entity].rows / layout.rows)
        for name, source in plan.sources.items():
            spill.write(_source_file(name), reading(name, source.fields, frames[name]))
        bounds = [int(_block(spill, plan.entity, [ROW], number, layout)[ROW][-1]) for number in range(blocks)]
        results = [
            _GroupPartitions(plan, group, layout=layout, spill=spill, sizes=sizes, bounds=bounds).results()
            for group in groups_of(plan)
        ]
        fields = kinds(plan.sources[plan.entity].fields)
        read = row_columns(plan)
        for number in range(blocks):
            rows = _block(spill, plan.entity, [*read, ROW], number, layout)
            measured: dict[str, pl.Series] = {}
            for names in results:
                block = spill.read(names[number]).sort(ROW)
                spill.delete(names[number])
                measured |= {name: block[name] for name in block.columns if name != ROW}
            yield with_expressions(plan, {name: fields[name] for name in read}, rows, measured)


def row_columns(plan: FeaturePlan) -> list[str]:
    """The columns of the entity source that expressions read."""
    return sorted({name for spec in plan.features if spec.expr is not None for name in columns_of(spec.expr)})


def source_size(plan: FeaturePlan, name: str, frames: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> Size:
    """Rows of a source, and the bytes of one by its first rows."""
    if name not in frames:
        raise DataError(f"the rows of {name} are needed for its features", subject=name)
    lazy = reading(name, plan.sources[name].fields, frames[name])
    sample = lazy.head(_SAMPLE).collect()
    return Size(lazy.select(pl.len()).collect().item(), sample.estimated_size() / max(sample.height, 1))


def _source_file(name: str) -> str:
    return f"source-{name}"


def _block(spill: Spill, source: str, columns: list[str], number: int, layout: Layout) -> pl.DataFrame:
    return spill.scan(_source_file(source)).select(columns).slice(number * layout.rows, layout.rows).collect()


class _Partition(NamedTuple):
    """Files with events of a group and with the queries of the same keys; one and the same where they are one source.
    How many rows they hold, and their bytes in memory.
    """

    events: list[str]
    queries: list[str]
    counts: list[int]
    bytes: list[int]

    @classmethod
    def empty(cls) -> _Partition:
        return cls([], [], [0, 0], [0, 0])


class _GroupPartitions:
    """The windows and lookups of one group, partition by partition."""

    def __init__(
        self,
        plan: FeaturePlan,
        group: Group,
        *,
        layout: Layout,
        spill: Spill,
        sizes: Mapping[str, Size],
        bounds: list[int],
    ) -> None:
        assert plan.predict_at is not None
        self._plan, self._group, self._layout, self._spill, self._bounds = plan, group, layout, spill, bounds
        self._sizes = sizes
        events = event_columns(group, plan.sources[group.source])
        queries = {*group.by, plan.predict_at.column}
        self._same = group.source == plan.entity
        self._events = [*sorted(events | queries if self._same else events), ROW]
        self._queries = [*sorted(queries), ROW]
        self._results: dict[int, list[str]] = defaultdict(list)
        self._files = 0

    def results(self) -> dict[int, list[str]]:
        """The files with the results of each block of rows."""
        need = group_need(self._group, self._sizes[self._group.source], self._sizes[self._plan.entity])
        count = max(math.ceil(need / self._layout.target), 1)
        parts = [_Partition.empty() for _ in range(count)]
        sides = [(0, self._group.source, self._events)]
        sides += [] if self._same else [(1, self._plan.entity, self._queries)]
        for side, source, columns in sides:
            for number in range(math.ceil(self._sizes[source].rows / self._layout.rows)):
                frame = _block(self._spill, source, columns, number, self._layout)
                self._scatter(frame, side, parts, divisor=1)
        for part in parts:
            self._compute(part, count, 1)
        return self._results

    def _scatter(self, frame: pl.DataFrame, side: int, parts: list[_Partition], *, divisor: int) -> None:
        """Write the rows of each partition to a file of their own. A row without a key goes by its position."""
        keyless = pl.any_horizontal(pl.col(name).is_null() for name in self._group.by)
        hashed = pl.when(keyless).then(pl.col(ROW).cast(pl.UInt64)).otherwise(pl.struct(self._group.by).hash())
        frame = frame.with_columns((hashed // divisor % len(parts)).alias(_PARTITION))
        for (number,), rows in frame.partition_by(_PARTITION, as_dict=True, include_key=False).items():
            self._files += 1
            name = f"part-{self._group.number}-{self._files}"
            self._spill.write(name, rows)
            target = parts[int(number)]
            (target.events, target.queries)[side].append(name)
            target.counts[side] += rows.height
            target.bytes[side] += int(rows.estimated_size())

    def _compute(self, part: _Partition, divisor: int, level: int) -> None:
        counts = part.counts[:1] * 2 if self._same else part.counts
        if not counts[1]:
            self._spill.delete(part.events)
            return
        need = group_need(self._group, Size(counts[0], 0), Size(counts[1], 0)) + sum(part.bytes)
        if need > self._layout.most:
            self._repartition(part, need, divisor, level)
            return
        events = self._read(part.events, self._group.source, self._events)
        queries = events if self._same else self._read(part.queries, self._plan.entity, self._queries)
        self._spill.delete([*part.events, *part.queries])
        columns = GroupWindows(self._plan, self._group, events, queries, apart=False).results()
        result = pl.DataFrame({ROW: queries[ROW], **columns})
        begin = 0
        for number, last in enumerate(self._bounds):
            end = int(result[ROW].search_sorted(last, side="right"))
            if end > begin:
                self._files += 1
                name = f"result-{self._group.number}-{self._files}"
                self._spill.write(name, result[begin:end])
                self._results[number].append(name)
            begin = end

    def _read(self, names: list[str], source: str, columns: list[str]) -> pl.DataFrame:
        return self._spill.read(names) if names else _block(self._spill, source, columns, 0, self._layout).clear()

    def _repartition(self, part: _Partition, need: float, divisor: int, level: int) -> None:
        """Split by further digits of the hash. A key that has too many rows by itself is named by its columns."""
        if level > _LEVELS:
            raise self._too_many_rows(part, need)
        count = math.ceil(need / self._layout.target) + 1
        parts = [_Partition.empty() for _ in range(count)]
        for side, names in enumerate((part.events, part.queries)):
            for name in names:
                self._scatter(self._spill.read([name]), side, parts, divisor=divisor)
                self._spill.delete([name])
        for one in parts:
            self._compute(one, divisor * count, level + 1)

    def _too_many_rows(self, part: _Partition, need: float) -> UsageError:
        wanted = resident_memory() + need / _MOST
        return UsageError(
            f"one value of {', '.join(self._group.by)} has about {max(part.counts):,} rows, whose features take "
            f"{need / _GIB:.1f} GiB, more than resources.memory leaves",
            subject="resources.memory",
            hint=f"{raise_limit(wanted)}, or leave that value out in `prepare` of {self._group.source}",
        )

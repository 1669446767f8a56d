"""The offline engine for more rows than memory holds: the same features, bit for bit, in the same order.

Each group's events and queries are partitioned on disk by the hash of their key, computed on all cores, and merged in
blocks of rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.errors import DataError, UsageError
from cumulant.core.plan import FeaturePlan
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import raise_limit, resident_memory
from cumulant.data.parts.spill import Spill, spill_in
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.offline.frames import kinds, scan_fields
from cumulant.features.offline.groups import MeasureGroup, groups_of
from cumulant.features.offline.key_partitions import group_columns, in_order, row_columns, scatter
from cumulant.features.offline.memory_need import SourceSize, group_need, output_width, results_width, whole_need
from cumulant.features.offline.offline import MOST_THREADS, compute, with_expressions
from cumulant.features.offline.versions import as_predicted
from cumulant.features.offline.windows import GroupWindows, count_events

#: the files with the columns of the rows that expressions read, and with a source that has versions
_ROWS, _ENTITY = "rows", "entity"
_SAMPLE = 65_536
#: of the memory that is free to use: the partitions of a group that are computed at a time, and the most that they may
#: take; one block of rows
_TARGET, _MOST, _BLOCK = 0.35, 0.8, 0.15
#: whatever is free, so much is used, since less would be spent on files, and no more than that unless one key needs it:
#: partitions that lie in the processor's caches and are computed side by side take less time than the whole
LEAST_MEMORY, _ENOUGH = 32 << 20, 1 << 30
#: the most of what is free beyond that for rows and results that are not set aside on disk
_IN_MEMORY = 320 << 20
_LEAST_ROWS, _MOST_ROWS = 10_000, 2_000_000
#: rows that are put into one partition at a time, and results of one partition into one file, where there is room for
#: them: a piece costs as much as a thousand rows
_PIECE = 8_192
#: of the memory of the partitions that are computed at a time: rows that wait for their partitions, one file of results
_WAITING, _RESULTS = 1 / 6, 1 / 3
#: how often a partition that is too large is split before its key is named; and of its rows those of one key, surely
_LEVELS, _ONE_KEY = 3, 0.9
_MIB = 1 << 20
#: of the whole work, for progress: reading the rows, and computing the windows
_READ, _WINDOWS = 0.3, 0.4


class Layout(NamedTuple):
    """Rows of a block; bytes and number of concurrent partitions; bytes that stay in memory between the steps."""

    rows: int
    target: float
    most: float
    threads: int = 1
    in_memory: int = 0


def compute_within(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    *,
    memory: int,
    scratch: Path,
    progress: Progress = silent,
) -> pl.DataFrame | Iterator[pl.DataFrame]:
    """The features of every row of the entity source, with about `memory` bytes of this process.

    Returns:
        The table where it is small, else its rows block by block, which use `scratch`.

    Raises:
        DataError: as `compute`.
        UsageError: one key has more rows than fit.
        StorageError: the disk is full.
    """
    sizes = {name: source_size(plan, name, frames) for name in plan.sources}
    free = max(memory - resident_memory(), LEAST_MEMORY)
    used = min(free, _ENOUGH)
    if whole_need(plan, sizes) <= used:
        return compute(plan, frames)
    rows = int(used * _BLOCK / (2 * output_width(plan, sizes[plan.entity].width)))
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    rows = min(max(rows, _LEAST_ROWS), _MOST_ROWS)
    layout = Layout(rows, used * _TARGET, free * _MOST, threads, min(free - used, _IN_MEMORY))
    return compute_partitioned(plan, frames, layout, sizes=sizes, scratch=scratch, progress=progress)


def compute_partitioned(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    layout: Layout,
    *,
    sizes: Mapping[str, SourceSize],
    scratch: Path,
    progress: Progress = silent,
) -> Iterator[pl.DataFrame]:
    """`compute`, block by block; `progress` is reported, also while the blocks are read."""
    with spill_in(scratch, in_memory=layout.in_memory) as spill:
        sources = {name: scan_fields(name, source.fields, frames[name]) for name, source in plan.sources.items()}
        queries = sources[plan.entity]
        if FROM in queries.collect_schema():  # other rows than the source's, which is read several times for them
            spill.write(_ENTITY, queries)
            sources[plan.entity] = spill.scan(_ENTITY)
            queries = as_predicted(sources[plan.entity], plan.sources[plan.entity], plan.predict_at)
        work = _Work(plan, layout, spill, sizes, sources, queries, progress)
        groups = [_GroupPartitions(work, group) for group in groups_of(plan)]
        bounds = _partition(work, groups)
        if not bounds:
            yield compute(plan, {name: frame.lazy().head(0) for name, frame in frames.items()})
            return
        spans = _spans(bounds, _rows_of_span(work, groups))
        results = []
        for place, group in enumerate(groups):
            progress(f"features: windows of group {place + 1} of {len(groups)}", _READ + _WINDOWS * place / len(groups))
            results.append(group.results([span[-1] for span in spans]))
        yield from _prefetch(_merge_results(work, results, spans))


def _rows_of_span(work: _Work, groups: list[_GroupPartitions]) -> float:
    """Rows whose results lie in one file: more where there are more partitions, as far as they fit in memory."""
    if not groups:
        return 0
    width = sum(results_width(group, work.sizes[group.source].width) for group in groups_of(work.plan))
    return min(max(group.count for group in groups) * _PIECE, work.layout.target * _RESULTS / width)


def _spans(bounds: list[int], rows: float) -> list[list[int]]:
    """The last positions of blocks, of those together that have so many rows; at least one block each."""
    spans: list[list[int]] = []
    begin = -1
    for bound in bounds:
        if not spans or bound - begin > rows:
            begin = spans[-1][-1] if spans else -1
            spans.append([])
        spans[-1].append(bound)
    return spans


def _merge_results(work: _Work, results: list[list[str]], spans: list[list[int]]) -> Iterator[pl.DataFrame]:
    """The features of each block of rows, of the files with the results of each group."""
    plan, spill = work.plan, work.spill
    fields, blocks, last = kinds(plan.sources[plan.entity].fields), spill.appended(_ROWS), spans[-1][-1]
    for number, span in enumerate(spans):
        measured: dict[str, pl.Series] = {}
        for names in results:
            columns = in_order(pl.concat(spill.appended(names[number]), rechunk=True))
            spill.delete([names[number]])
            measured |= {name: columns[name] for name in columns.columns if name != ROW}
        begin = 0
        for bound in span:
            rows = next(blocks)
            part = {name: series.slice(begin, rows.height) for name, series in measured.items()}
            begin += rows.height
            yield with_expressions(plan, {name: fields[name] for name in row_columns(plan)}, rows, part)
            done = (bound + 1) / (last + 1)
            work.progress(f"features of {bound + 1:,} of {last + 1:,} rows", 1 - (1 - _READ - _WINDOWS) * (1 - done))


def _prefetch(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames, of which the next one is made while one is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, frames, None)
        while (frame := following.result()) is not None:
            following = pool.submit(next, frames, None)
            yield frame


def source_size(plan: FeaturePlan, name: str, frames: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> SourceSize:
    """Rows of a source, and the bytes of one by its first rows."""
    if name not in frames:
        raise DataError(f"the rows of {name} are needed for its features", subject=name)
    lazy = scan_fields(name, plan.sources[name].fields, frames[name])
    sample = lazy.head(_SAMPLE).collect()
    return SourceSize(lazy.select(pl.len()).collect().item(), sample.estimated_size() / max(sample.height, 1))


class _Work(NamedTuple):
    """The inputs that the groups of a plan share. `queries`: the rows to compute features of."""

    plan: FeaturePlan
    layout: Layout
    spill: Spill
    sizes: Mapping[str, SourceSize]
    sources: Mapping[str, pl.LazyFrame]
    queries: pl.LazyFrame
    progress: Progress


def _partition(work: _Work, groups: list[_GroupPartitions]) -> list[int]:
    """Partition the rows of each source, read once, and store queries by block; the last query of each block."""
    bounds = []
    columns = [*row_columns(work.plan), ROW]
    for block in _blocks(work.queries, {*columns}.union(*(group.columns[1] for group in groups)), work.layout.rows):
        bounds.append(int(block[ROW][-1]))
        work.spill.append(_ROWS, block.select(columns))
        for group in groups:
            group.add(block, 1)
        done, rows = bounds[-1] + 1, work.sizes[work.plan.entity].rows
        work.progress(f"features: {done:,} of {rows:,} rows read", _READ * min(done / max(rows, 1), 1.0))
    for name, source in work.sources.items() if bounds else ():
        for group in groups:
            group.add_pending()
        readers = [group for group in groups if group.source == name and not group.same]
        if readers:
            for block in _blocks(source, set().union(*(group.columns[0] for group in readers)), work.layout.rows):
                for group in readers:
                    group.add(block, 0)
    for group in groups:
        group.add_pending()
    return bounds


def _blocks(rows: pl.LazyFrame, columns: set[str], count: int) -> Iterator[pl.DataFrame]:
    """The rows in order, so many at a time."""
    for frame in rows.select(sorted(columns)).collect_batches(chunk_size=count, maintain_order=True):
        if frame.height:
            yield from frame.iter_slices(count)


class _Partition(NamedTuple):
    """Files with events of a group and with the queries of the same keys, empty where they are one source.

    `counts`: their rows; `size`: bytes in memory.
    """

    files: tuple[str, str]
    counts: list[int]
    bytes: list[int]


class _GroupPartitions:
    """The windows and lookups of one group, some partitions at a time."""

    def __init__(self, work: _Work, group: MeasureGroup) -> None:
        plan = work.plan
        self._plan, self._group, self._layout, self._spill = plan, group, work.layout, work.spill
        source = work.sources[group.source]
        self.source = group.source
        #: the events are the queries
        self.same = source is work.queries
        self._dates = {FROM, UNTIL} & set(source.collect_schema().names())
        #: of the events and of the queries
        self.columns = group_columns(plan, group, self._dates, same=self.same)
        self._none = [
            pl.DataFrame(schema=frame.select(columns).collect_schema())
            for frame, columns in zip((source, work.queries), self.columns, strict=True)
        ]
        need = group_need(group, work.sizes[group.source], work.sizes[plan.entity])
        self._partitions = 0
        self._parts = self._empty(max(math.ceil(need * work.layout.threads / work.layout.target), 1))
        self._bounds: list[int] = []
        #: of each side the rows that are not in their partitions yet, and the most bytes of them
        self._pending: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
        self._most_pending = work.layout.target * _WAITING / len(groups_of(plan))

    @property
    def count(self) -> int:
        """How many partitions there are before any is split."""
        return len(self._parts)

    def add(self, rows: pl.DataFrame, side: int) -> None:
        """Put events (`side` 0) or queries (1) into their partitions, now or with later ones."""
        side = 0 if self.same else side
        pending = self._pending[side]
        pending.append(rows.select(self.columns[side]))
        count, size = sum(frame.height for frame in pending), sum(frame.estimated_size() for frame in pending)
        if count >= self.count * _PIECE or size * (1 + 1 / len(pending)) >= self._most_pending:
            self.add_pending()

    def add_pending(self) -> None:
        """Put the rows that are not there yet into their partitions."""
        for side, pending in enumerate(self._pending):
            if pending:
                rows = pl.concat(pending)
                pending.clear()
                self._scatter(rows, side, self._parts, divisor=1)

    def results(self, bounds: list[int]) -> list[str]:
        """The file with the results of each span of rows, which end at these positions."""
        self._bounds = bounds
        parts, count = self._parts, len(self._parts)
        needs = [self._need(part) for part in parts]
        share = self._limit / self._layout.threads
        with ThreadPoolExecutor(self._layout.threads) as pool:
            small = [part for part, need in zip(parts, needs, strict=True) if need <= share]
            list(pool.map(self._compute, small))
        large = [(part, need) for part, need in zip(parts, needs, strict=True) if need > share]
        if large:
            self._spill.release_memory()
        for part, need in large:  # with the memory of all
            self._compute_large(part, need, count, 1)
        return [self._result_file(number) for number, _ in enumerate(bounds)]

    def _result_file(self, number: int) -> str:
        return f"result-{self._group.number}-{number}"

    def _empty(self, count: int) -> list[_Partition]:
        first = self._partitions
        self._partitions += count
        names = [f"{self._group.number}-{number}" for number in range(first, first + count)]
        return [_Partition((f"events-{name}", f"queries-{name}"), [0, 0], [0, 0]) for name in names]

    def _scatter(self, frame: pl.DataFrame, side: int, parts: list[_Partition], *, divisor: int) -> None:
        """Add the rows of each partition to its file."""
        for number, rows in scatter(frame, self._group.by, len(parts), divisor=divisor):
            target = parts[number]
            self._spill.append(target.files[side], rows)
            target.counts[side] += rows.height
            target.bytes[side] += int(rows.estimated_size())

    @property
    def _limit(self) -> float:
        """Bytes that a partition may take, unless its rows are those of one key."""
        return min(self._layout.most, 2 * self._layout.target)

    def _need(self, part: _Partition) -> float:
        """Bytes that the windows of a partition take. Corrected rows count as often as they are read."""
        events = part.counts[0]
        if self._dates and events:
            events = count_events(self._plan, self._group, self._read(part, 0))
        queries = part.counts[0 if self.same else 1]
        return group_need(self._group, SourceSize(events, 0), SourceSize(queries, 0)) + sum(part.bytes)

    def _compute_large(self, part: _Partition, need: float, divisor: int, level: int) -> None:
        if need > self._limit and level <= _LEVELS:
            self._repartition(part, need, divisor, level)
        elif need > self._layout.most:
            raise self._too_many_rows(part, need)
        else:
            self._compute(part)

    def _compute(self, part: _Partition) -> None:
        if not part.counts[0 if self.same else 1]:
            self._spill.delete(part.files)
            return
        events = self._read(part, 0)
        queries = events if self.same else self._read(part, 1)
        self._spill.delete(part.files)
        columns = GroupWindows(self._plan, self._group, events, queries, apart=False).results()
        result = pl.DataFrame({ROW: queries[ROW], **columns})
        begin = 0
        for number, end in enumerate(np.searchsorted(result[ROW].to_numpy(), self._bounds, side="right").tolist()):
            if end > begin:
                self._spill.append(self._result_file(number), result[begin:end])
            begin = end

    def _read(self, part: _Partition, side: int) -> pl.DataFrame:
        if part.counts[side]:
            return pl.concat(self._spill.appended(part.files[side]), rechunk=True)
        return self._none[side]

    def _repartition(self, part: _Partition, need: float, divisor: int, level: int) -> None:
        """Split by further digits of the hash. A key that has too many rows by itself is named by its columns."""
        count = math.ceil(need / self._layout.target) + 1
        parts = self._empty(count)
        for side, name in enumerate(part.files):
            for frame in self._spill.appended(name) if part.counts[side] else ():
                self._scatter(frame, side, parts, divisor=divisor)
        self._spill.delete(part.files)
        for smaller in parts:
            undivided = max(smaller.counts) > _ONE_KEY * max(part.counts)
            self._compute_large(smaller, self._need(smaller), divisor * count, _LEVELS + 1 if undivided else level + 1)

    def _too_many_rows(self, part: _Partition, need: float) -> UsageError:
        needed = resident_memory() + need / _MOST
        return UsageError(
            f"one value of {', '.join(self._group.by)} has about {max(part.counts):,} rows, whose features take "
            f"{need / _MIB:,.0f} MiB, more than resources.memory leaves",
            subject="resources.memory",
            hint=f"{raise_limit(needed)}, or leave that value out in `prepare` of {self._group.source}",
        )

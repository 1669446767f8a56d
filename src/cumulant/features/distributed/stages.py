"""The stages of the work, which run in processes of the engine: each makes a function of blocks from the layout.

Slices of files are divided into partitions by key; the windows of a partition are computed by the offline engine; the
results of a block of rows are brought together, and its expressions are computed and written.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import MissingPartError
from cumulant.data.parts.spill import arrow_stream
from cumulant.data.row_columns import ROW
from cumulant.features.distributed.layout import Slice, WorkLayout, staging_errors
from cumulant.features.offline.frames import kinds
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.key_partitions import in_order, probe_hashes, row_columns, scatter
from cumulant.features.offline.offline import with_expressions
from cumulant.features.offline.windows import GroupWindows
from cumulant.ports.compute import BlockFunction, WorkerBlock

#: the orders of blocks of events come first, then those of queries
_QUERIES = 1 << 62


def divide(arguments: dict[str, object]) -> BlockFunction:
    """The rows of a slice by group and partition.

    Raises:
        MissingPartError: keys are hashed otherwise here, so that rows of one key would not come together.
    """
    layout = msgspec.convert(arguments, WorkLayout)
    if probe_hashes() != layout.hashes:
        raise MissingPartError(
            f"Polars {pl.__version__} on {socket.gethostname()} hashes keys otherwise than in the process that asks",
            subject="history",
            hint="install the same build of Polars (polars[rtcompat] is another one) on machines of one architecture",
        )

    def of_slice(_key: int, blocks: Sequence[WorkerBlock]) -> Iterator[WorkerBlock]:
        for block in blocks:
            of = msgspec.msgpack.decode(block.data, type=Slice)
            for group in layout.groups:
                events, queries = layout.columns(group)
                if layout.tables[group.source].file == of.file:
                    yield from _divided(layout, group, of, events, 0)
                if layout.queries.file == of.file and not layout.is_same(group):
                    yield from _divided(layout, group, of, queries, _QUERIES)

    return of_slice


def _divided(
    layout: WorkLayout, group: MeasureGroup, of: Slice, columns: list[str], first: int
) -> Iterator[WorkerBlock]:
    table = layout.queries if of.file == layout.queries.file else layout.tables[group.source]
    rows = layout.scan(of.file).select(columns).slice(of.begin, table.step).collect()
    for partition, part in scatter(rows, group.by, layout.partitions[group.number]):
        yield WorkerBlock(layout.key(group, partition), first + of.begin, arrow_stream(part, "uncompressed"))


def windows(arguments: dict[str, object]) -> BlockFunction:
    """The windows and lookups of a partition of a group, by block of the result."""
    layout = msgspec.convert(arguments, WorkLayout)

    def of_partition(key: int, blocks: Sequence[WorkerBlock]) -> Iterator[WorkerBlock]:
        group = layout.group_of(key)
        events = _frame(layout, group, 0, [block for block in blocks if block.order < _QUERIES])
        queries = events
        if not layout.is_same(group):
            queries = _frame(layout, group, 1, [block for block in blocks if block.order >= _QUERIES])
        if not queries.height:
            return
        apart = layout.counts_itself(group)
        columns = GroupWindows(layout.plan, group, events, queries, apart=apart).results()
        result, begin = pl.DataFrame({ROW: queries[ROW], **columns}), 0
        for block, end in enumerate(np.searchsorted(result[ROW].to_numpy(), layout.ends, side="right").tolist()):
            if end > begin:
                yield WorkerBlock(block, key, arrow_stream(result[begin:end], "uncompressed"))
            begin = end

    return of_partition


def _frame(layout: WorkLayout, group: MeasureGroup, side: int, blocks: Sequence[WorkerBlock]) -> pl.DataFrame:
    if not blocks:
        file = layout.queries.file if side else layout.tables[group.source].file
        return layout.scan(file).select(layout.columns(group)[side]).head(0).collect()
    return pl.concat([pl.read_ipc_stream(block.data) for block in blocks])


def features(arguments: dict[str, object]) -> BlockFunction:
    """The file with the features of a block of rows. The block says how many these are."""
    layout = msgspec.convert(arguments, WorkLayout)
    fields = kinds(layout.fields)
    raw = {name: fields[name] for name in row_columns(layout.plan)}

    def of_block(number: int, blocks: Sequence[WorkerBlock]) -> Iterator[WorkerBlock]:
        table, measured = layout.queries, dict[str, pl.Series]()
        for group in layout.groups:
            parts = [block.data for block in blocks if layout.group_of(block.order) is group]
            results = in_order(pl.concat([pl.read_ipc_stream(part) for part in parts]))
            measured |= {name: results[name] for name in results.columns if name != ROW}
        rows = layout.scan(table.file).select(*raw, ROW).slice(number * table.step, table.step).collect()
        frame = with_expressions(layout.plan, raw, rows, measured)
        _write(frame, layout, number)
        yield WorkerBlock(number, frame.height, b"")

    return of_block


def _write(frame: pl.DataFrame, layout: WorkLayout, number: int) -> None:
    """Write a block under its name at once, since a stage may be repeated."""
    path = layout.result(number)
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    with staging_errors(path.parent):
        frame.write_parquet(temporary, compression="lz4")
        temporary.replace(path)

"""Which tables of batches are put together, and how far that is; the batches themselves stay as they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from cumulant.core.ids import digest
from cumulant.data.snapshot import RowRange
from cumulant.data.streams.records import StreamBatch

#: journal rows: how far a source's batches are compacted, and tables that were replaced (`SOURCE/NUMBER`)
COMPACTION, REPLACED = "stream_compaction", "stream_replaced"
#: a table of fewer bytes is put together with others; of one step, the most batches and bytes, and the fewest tables
SMALL_BYTES, MOST_BATCHES, MOST_BYTES, FEWEST = 8 << 20, 1000, 64 << 20, 100


class CompactionState(msgspec.Struct, frozen=True, kw_only=True):
    """The last batch whose tables were put together or left as they are, and the last whose refused ones expired."""

    number: int = 0
    expired: int = 0


class ReplacedTables(msgspec.Struct, frozen=True, kw_only=True):
    """Tables that no batch names since `at`; somebody may still read them."""

    at: datetime
    keys: tuple[str, ...]


class TableGroup(NamedTuple):
    """Tables of equal columns: where the rows of each are in the one that they become."""

    key: Hashable
    tables: tuple[RowRange, ...]

    @property
    def content(self) -> str:
        return digest([table.key for table in self.tables])

    def placed(self, key: str) -> dict[str, RowRange]:
        """By the key of each table, its rows in the table `key`. What it had of bytes it keeps: snapshots show them."""
        result, first = {}, 0
        for table in self.tables:
            result[table.key] = RowRange(key, table.rows, table.bytes, first)
            first += table.rows
        return result


def is_small(table: RowRange | None) -> bool:
    """Whether a table is put together with others; what was put together is left as it is."""
    return table is not None and table.first is None and table.bytes <= SMALL_BYTES


def next_window(batches: Sequence[StreamBatch]) -> Sequence[StreamBatch]:
    """Those of the next batches that one step compacts; none while there are too few."""
    size = tables = 0
    for place, batch in enumerate(batches):
        small = [table for table in (batch.rows, batch.refused) if table is not None and is_small(table)]
        size += sum(table.bytes for table in small)
        tables += len(small)
        if size >= MOST_BYTES:
            return batches[: place + 1]
    return batches if len(batches) >= MOST_BATCHES or tables >= FEWEST else ()


def group_tables(tables: Iterable[tuple[Hashable, RowRange]]) -> list[TableGroup]:
    """Tables by what of them must be equal, in their order; without those that are alone."""
    groups: dict[Hashable, list[RowRange]] = {}
    for key, table in tables:
        groups.setdefault(key, []).append(table)
    return [TableGroup(key, tuple(some)) for key, some in groups.items() if len(some) > 1]


def with_tables(batch: StreamBatch, placed: dict[str, RowRange]) -> StreamBatch:
    """The batch with its tables where they are now."""
    rows = batch.rows if batch.rows is None else placed.get(batch.rows.key, batch.rows)
    refused = batch.refused if batch.refused is None else placed.get(batch.refused.key, batch.refused)
    return msgspec.structs.replace(batch, rows=rows, refused=refused)

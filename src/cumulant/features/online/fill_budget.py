"""Filling online state within a bound of memory: the events of a group in frames of other keys, set aside on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from cumulant.core.errors import UsageError
from cumulant.core.plan import Source
from cumulant.core.system.memory import raise_limit, resident_memory
from cumulant.data.parts.spill import Spill, spill_in
from cumulant.features.offline.frames import blocks_of, scan_fields
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.memory_need import SourceSize, group_need

_PARTITION = "__partition"
_SAMPLE = 65_536
#: of the free memory: one partition with all that is made of it, and the most that one may take
_TARGET, _MOST = 0.5, 0.9
#: bytes of a row's columns, of the text objects made of them, and of the packed copies of its numbers; times its width
_COPIES = 4.0
#: whatever is free, so much is used
_LEAST = 64 << 20
#: rows that are read at a time; to be partitioned more of them, as far as this share of the free memory has room, since
#: each partition gets a frame of each block
_BLOCK, _MOST_ROWS, _SHARE = 65_536, 1_000_000, 0.03
#: files that are written at once
_MOST_PARTS = 1_024
_MIB = 1 << 20


class FillBudget(NamedTuple):
    """Bytes that are free for a filling, the folder for what is set aside, and the rows of a block."""

    free: int
    scratch: Path | None
    block: int = _BLOCK

    @classmethod
    def of(cls, memory: int, scratch: Path | None) -> FillBudget:
        """What is left of `memory` bytes beside what this process holds now."""
        return cls(max(memory - resident_memory(), _LEAST), scratch)

    def frames(self, group: MeasureGroup, rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
        """The rows in one frame where they fit, else in several, each with all rows of its keys, in their order.

        Raises:
            UsageError: the rows of one key do not fit.
            StorageError: the disk is full.
        """
        size = _size(rows)
        parts = math.ceil(_need(group, size) / (self.free * _TARGET))
        if parts <= 1:
            yield rows.collect()
            return
        parts = min(parts, _MOST_PARTS)
        with spill_in(self.scratch) as spill:
            count = int(self.free * _SHARE / max(size.width, 1.0))
            block = min(max(count, self.block), _MOST_ROWS)
            counts = self._partition(group, blocks_of(rows.drop_nulls(group.by), block), spill, parts)
            largest = max(counts, default=0)
            if (need := _need(group, SourceSize(largest, size.width))) > self.free * _MOST:
                raise UsageError(
                    f"one value of {', '.join(group.by)} has many of the {size.rows:,} rows of {group.source}: about"
                    f" {largest:,}, whose online state takes {need / _MIB:,.0f} MiB, more than resources.memory leaves",
                    subject="resources.memory",
                    hint=raise_limit(resident_memory() + need / _MOST),
                )
            for number, count in enumerate(counts):
                if count:
                    name = str(number)
                    frame = pl.concat(spill.appended(name))
                    spill.delete([name])
                    yield frame

    def check_whole(self, source: Source, rows: pl.LazyFrame | pl.DataFrame) -> None:
        """Raises UsageError: the rows of a source with corrections, which are held at once, do not fit."""
        size = _size(scan_fields(source.name, source.fields, rows))
        if (need := size.rows * size.width * _COPIES) > self.free:
            raise UsageError(
                f"the {size.rows:,} rows of {source.name}, whose posted rows may correct earlier ones, are held at once"
                f" to fill online state and take {need / _MIB:,.0f} MiB, more than resources.memory leaves",
                subject="resources.memory",
                hint=raise_limit(resident_memory() + need),
            )

    def _partition(self, group: MeasureGroup, blocks: Iterator[pl.DataFrame], spill: Spill, parts: int) -> list[int]:
        """Put rows that have a key into files by its hash; how many are in each."""
        counts = [0] * parts
        number = (pl.struct(group.by).hash() % parts).alias(_PARTITION)
        for block in blocks:
            for (part,), frame in (
                block.with_columns(number).partition_by(_PARTITION, as_dict=True, include_key=False).items()
            ):
                spill.append(str(part), frame)
                counts[int(part)] += frame.height
        return counts


def _size(rows: pl.LazyFrame) -> SourceSize:
    """Rows, and the bytes of one by the first of them."""
    sample = rows.head(_SAMPLE).collect()
    if sample.height < _SAMPLE:
        return SourceSize(sample.height, sample.estimated_size() / max(sample.height, 1))
    count = rows.select(pl.len()).collect(engine="streaming").item()
    return SourceSize(count, sample.estimated_size() / max(sample.height, 1))


def _need(group: MeasureGroup, size: SourceSize) -> float:
    """Bytes that the events of a frame take with everything that is made of them."""
    return group_need(group, size, SourceSize(0, 0.0)) + _COPIES * size.rows * size.width

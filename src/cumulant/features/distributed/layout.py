"""How the work is divided: files of rows, slices of them, partitions of keys, and blocks of rows of the result."""

from __future__ import annotations

import math
from bisect import bisect_right
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from cumulant.core.plan import FeaturePlan, Field, read_plan
from cumulant.data.parts.spill import disk_errors
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.offline.groups import MeasureGroup, groups_of
from cumulant.features.offline.key_partitions import group_columns, row_columns
from cumulant.features.offline.memory_need import SourceSize, group_need


class Division(NamedTuple):
    """How finely the work is divided.

    `partition`: bytes that the windows of one take, unless a key has more; `slice`: bytes of a slice of a file. There
    are at least `slices` of these, for as many machines, as far as each has `least_rows`.
    """

    partition: int = 64 << 20
    slice: int = 64 << 20
    slices: int = 32
    least_rows: int = 65_536

    def partitions(self, group: MeasureGroup, events: SourceSize, queries: SourceSize) -> int:
        return max(math.ceil(group_need(group, events, queries) / self.partition), 1)

    def step(self, rows: int, width: float) -> int:
        """Rows of a slice, each of so many bytes."""
        most = max(int(self.slice / max(width, 1)), 1)
        return max(min(math.ceil(rows / self.slices), most), min(self.least_rows, most))


class Table(msgspec.Struct, frozen=True):
    """A file of rows. `step`: rows of a slice; `dated`: they have versions."""

    file: str
    rows: int
    step: int
    dated: bool

    def slices(self) -> range:
        """Where each slice begins."""
        return range(0, self.rows, self.step)


class Slice(msgspec.Struct, frozen=True):
    file: str
    begin: int


class WorkLayout(msgspec.Struct, frozen=True, dict=True):
    """What all processes know, as JSON. `tables`: of the sources that groups read; `queries`: the rows to compute
    features of, in their order; `apart`: these are beside the history; `partitions`: of each group; `ends`: the last
    row of each slice of the queries, which is a block of the result; `hashes`: how keys are divided (`probe_hashes`).
    """

    plan_document: dict[str, Any]
    folder: str
    tables: dict[str, Table]
    queries: Table
    apart: bool
    partitions: tuple[int, ...]
    ends: tuple[int, ...]
    hashes: str

    @cached_property
    def plan(self) -> FeaturePlan:
        return read_plan(self.plan_document)

    @property
    def groups(self) -> tuple[MeasureGroup, ...]:
        return groups_of(self.plan)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Of the queries."""
        return self.plan.request if self.apart else self.plan.sources[self.plan.entity].fields

    @cached_property
    def _first_keys(self) -> tuple[int, ...]:
        """The key of the first partition of each group, then the number of all."""
        return tuple(accumulate(self.partitions, initial=0))

    @property
    def keys(self) -> int:
        return self._first_keys[-1]

    def key(self, group: MeasureGroup, partition: int) -> int:
        return self._first_keys[group.number] + partition

    def group_of(self, key: int) -> MeasureGroup:
        return self.groups[bisect_right(self._first_keys, key) - 1]

    def scan(self, file: str) -> pl.LazyFrame:
        return pl.scan_parquet(file_path(self.folder, file), glob=False, hive_partitioning=False)

    def result(self, block: int) -> Path:
        return file_path(self.folder, f"features-{block:08}")

    def is_same(self, group: MeasureGroup) -> bool:
        """Whether the events of a group are the queries."""
        return self.tables[group.source].file == self.queries.file

    def columns(self, group: MeasureGroup) -> tuple[list[str], list[str]]:
        """The columns of the events of a group, and of the queries."""
        dates = frozenset((FROM, UNTIL) if self.tables[group.source].dated else ())
        events, queries = group_columns(self.plan, group, dates, same=self.is_same(group))
        if self.counts_itself(group):
            events = [*sorted({*events, *self.plan.sources[group.source].key} - {ROW}), ROW]
            queries = [*sorted(field.name for field in self.plan.request), ROW]
        return events, queries

    def counts_itself(self, group: MeasureGroup) -> bool:
        """Whether a query beside the history counts in its own windows."""
        return self.apart and group.counts_itself


def file_path(folder: str | Path, file: str) -> Path:
    return Path(folder) / f"{file}.parquet"


def event_columns_of(plan: FeaturePlan, name: str, *, dated: bool) -> set[str]:
    """The columns of a source that its groups read."""
    dates = frozenset((FROM, UNTIL) if dated else ())
    groups = (group for group in groups_of(plan) if group.source == name)
    return {column for group in groups for column in group_columns(plan, group, dates, same=False)[0]}


def query_columns_of(plan: FeaturePlan) -> set[str]:
    """The columns of the queries that windows and expressions read."""
    moment = set() if plan.predict_at is None else {plan.predict_at.column}
    return {ROW, *moment, *row_columns(plan), *(column for group in groups_of(plan) for column in group.by)}


def staging_errors(folder: str | Path) -> AbstractContextManager[None]:
    """Errors of a full disk, or of one that may not be written, as those of the folder; all others pass, such as that
    a file of the rows is missing, which are read while the folder is written.

    Raises:
        StorageError: the folder has no room, or may not be written.
    """
    what = "the folder that is shared with the engine of the history cannot be used"
    no_room = "free some space in the staging folder"
    return disk_errors(folder, what, no_room=no_room, not_writable="make the folder writable")

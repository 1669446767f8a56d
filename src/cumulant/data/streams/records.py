"""What was ingested from a stream, as the journal keeps it: batches, and the positions after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

import msgspec

from cumulant.core.events import Fact
from cumulant.core.plan import DType
from cumulant.data.snapshot import RowRange
from cumulant.ports.streams import Messages

#: journal rows: how far a source's stream was read, and each batch of it (`SOURCE/NUMBER`)
STREAM, BATCH = "stream", "stream_batch"
#: the fields of a batch that are tables
_TABLES = ("rows", "refused")


class StreamBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were ingested at once: the positions that they moved, by partition, and what became of them.

    `content` is the digest of the messages, their positions and the declaration; None as `rows` or `refused`: there
    are none. They are ranges of tables that batches may share; `rows.scan(tables)` reads them. `event_times`: of
    partitions with rows, as in `StreamState`; `late`: rows that are, which have `__late`.
    """

    number: int
    content: str
    positions: dict[str, int]
    messages: int
    rows: RowRange | None
    refused: RowRange | None
    rules: dict[str, int]
    at: datetime
    event_times: dict[str, int] = {}
    late: int = 0

    @property
    def rows_passed(self) -> int:
        return 0 if self.rows is None else self.rows.rows


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the stream of a source was ingested. `identity`: of the topic, as its driver tells.

    `positions`: by partition, of the next message; `columns`: those that its messages had so far; `owners`: by
    partition, the member that reads it, as long as that has its lease; `rules`: the refused messages by rule;
    `rebalances`: how often owners changed; `event_times`, `active`: by partition, the event time that it has come to,
    in microseconds, and when its last row was ingested; `late`: rows that were too late for online features; `marks`:
    by partition, the digest of what is before the position, of drivers that tell it (`MarkedPositions`).
    """

    topic: str
    identity: str
    positions: dict[str, int] = {}
    columns: dict[str, DType] = {}
    owners: dict[str, str] = {}
    rules: dict[str, int] = {}
    rebalances: int = 0
    batches: int = 0
    messages: int = 0
    rows: int = 0
    refused: int = 0
    at: datetime | None = None
    event_times: dict[str, int] = {}
    active: dict[str, datetime] = {}
    late: int = 0
    marks: dict[str, str] = {}

    def after(self, batch: StreamBatch, columns: Mapping[str, DType]) -> StreamState:
        """The state once the batch is committed."""
        return msgspec.structs.replace(
            self,
            positions=self.positions | batch.positions,
            columns=dict(columns),
            rules=dict(Counter(self.rules) + Counter(batch.rules)),
            batches=batch.number,
            messages=self.messages + batch.messages,
            rows=self.rows + batch.rows_passed,
            refused=self.refused + batch.messages - batch.rows_passed,
            at=batch.at,
            event_times=self.event_times | batch.event_times,
            active=self.active | dict.fromkeys(batch.event_times, batch.at),
            late=self.late + batch.late,
        )


class StreamIngested(Fact, frozen=True, kw_only=True):
    """A batch of a stream was ingested."""

    kind: ClassVar[str] = "data.stream_ingested"

    source: str
    topic: str
    batch: int
    messages: int
    rows: int
    refused: int
    positions: dict[str, int]


def batch_value(batch: StreamBatch) -> dict[str, object]:
    """A batch as its journal row has it. A range of a table is an array there: versions that knew whole tables only
    refuse it, and do not read all rows of the table as those of the batch.
    """
    value: dict[str, object] = msgspec.to_builtins(batch)
    for name in _TABLES:
        table: RowRange | None = getattr(batch, name)
        if table is not None and table.first is not None:
            value[name] = list(msgspec.structs.astuple(table))
    return value


def read_batch(value: Mapping[str, object]) -> StreamBatch:
    """The batch of a journal row."""
    tables = {name: table for name in _TABLES if isinstance(table := value[name], list)}
    ranges = {name: RowRange(*msgspec.convert(table, tuple[str, int, int, int])) for name, table in tables.items()}
    batch = msgspec.convert({**value, **dict.fromkeys(tables)}, StreamBatch)
    return msgspec.structs.replace(batch, **ranges)


def batch_key(source: str, number: int) -> str:
    """The key of a batch's journal row; numbers sort as texts."""
    return f"{source}/{number:012d}"


def table_key(source: str, member: str, content: str, what: str) -> str:
    """The key of a batch's table: `rows` or `refused`. A killed member may leave one that no batch names."""
    return f"{table_prefix(source)}{member}-{content[:16]}/{what}"


def table_prefix(source: str) -> str:
    """What the keys of all tables of a source's stream begin with."""
    return f"streams/{source}/"


def unneeded_keys(
    source: str, batches: Iterable[StreamBatch], writers: Collection[str], keys: Iterable[str]
) -> list[str]:
    """Those of the stored keys of a source that no batch names, and that none of the writers stored: it may be about
    to commit them. List the keys first, then the writers, then the batches.
    """
    needed = {table.key for batch in batches for table in (batch.rows, batch.refused) if table is not None}
    return [
        key
        for key in keys
        if key not in needed and key.removeprefix(table_prefix(source)).partition("-")[0] not in writers
    ]


def content_of_stamp(stamp: str) -> str:
    """What of a listed batch's stamp says what its rows are, wherever they lie."""
    return stamp.partition(" ")[0]


def positions_after(batch: Sequence[Messages]) -> dict[str, int]:
    """The position after the last message of each partition."""
    return {str(messages.partition): messages.next for messages in batch}

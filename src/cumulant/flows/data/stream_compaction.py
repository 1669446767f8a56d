"""Many small tables of a stream's batches become few large ones, and old refused messages expire.

Batches keep their numbers, contents and rows: only the table in which their rows lie is another one, in which a batch
has a range. So snapshots, positions and readers that follow batches notice nothing. Each step is bounded, is one
transaction after the new table is stored, and may be killed at any moment. Tables that were replaced stay for an hour,
for those who have just read their names, and go when no run is in progress.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.errors import LeaseHeldError, NotFoundError, StorageError
from cumulant.core.events import Actor, Fact
from cumulant.flows.data.stream_membership import COMPACTOR, compactor_name
from cumulant.flows.data.stream_records import batch_of
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.lease import LeaseHandle, await_lease
from cumulant.flows.ledger.ledger_records import is_under_way, runs

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.snapshot import RowRange
    from cumulant.data.streams.compaction import CompactionState, ReplacedTables, TableGroup
    from cumulant.data.streams.records import StreamBatch
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Row
    from cumulant.project.project import Project

_LEASE_SECONDS = 30.0
#: the most steps of one call and source
_STEPS = 20
#: for how long a table that was replaced stays
GRACE = timedelta(hours=1)


class StreamCompacted(Fact, frozen=True, kw_only=True):
    """Tables of batches of a stream were put together, or refused messages expired."""

    kind: ClassVar[str] = "data.stream_compacted"

    source: str
    first: int
    last: int
    replaced: int
    written: int


class CompactedStreams(msgspec.Struct, frozen=True, kw_only=True):
    """How many tables were replaced by how many, and how many that had been replaced before are gone."""

    replaced: int = 0
    written: int = 0
    removed: int = 0


@verb("project.clean")
def compact_streams(
    project: Project, *, principal: Principal, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> CompactedStreams:
    """Put small tables of batches together, forget refused messages that are older than `keep_refused` of their source,
    and remove tables that were replaced an hour ago. A source that another process compacts is left to it.

    Raises:
        StorageError: a table cannot be written.
    """
    from cumulant.data.streams.records import STREAM

    total = CompactedStreams()
    for row in project.journal().rows(STREAM):
        identity = uuid.uuid4().hex
        lease = await_lease(
            project.journal(),
            compactor_name(row.key),
            ttl=_LEASE_SECONDS,
            actor=Actor(principal.id),
            data={COMPACTOR: identity},
        )
        if lease is None:
            continue
        with lease.renewed():
            counts = _Compactor(project, row.key, Actor(principal.id), lease, identity, now()).run()
            pairs = zip(msgspec.structs.astuple(total), msgspec.structs.astuple(counts), strict=True)
            total = CompactedStreams(
                **dict(zip(CompactedStreams.__struct_fields__, (sum(pair) for pair in pairs), strict=True))
            )
    return total


def replaced_keys(project: Project, source: str, now: datetime) -> set[str]:
    """Tables that were replaced so recently that somebody may still read them."""
    return {key for _, replaced in _replaced(project, source) if replaced.at > now - GRACE for key in replaced.keys}


def _replaced(project: Project, source: str) -> Iterator[tuple[Row, ReplacedTables]]:
    from cumulant.data.streams.compaction import REPLACED, ReplacedTables

    for row in project.journal().rows(REPLACED, f"{source}/"):
        yield row, msgspec.convert(row.value, ReplacedTables)


class _Compactor:
    """Compacts the batches of one source under a lease."""

    def __init__(  # noqa: PLR0917
        self, project: Project, source: str, actor: Actor, lease: LeaseHandle, identity: str, now: datetime
    ) -> None:
        self._project, self._source, self._actor, self._lease = project, source, actor, lease
        self._identity, self._now = identity, now

    def run(self) -> CompactedStreams:
        replaced = written = 0
        try:
            for _ in range(_STEPS):
                counts = self._compact()
                if counts is None:
                    break
                replaced, written = replaced + counts[0], written + counts[1]
            for _ in range(_STEPS):
                count = self._expire()
                if not count:
                    break
                replaced += count
            removed = self._remove()
        except LeaseHeldError:  # it took too long, and another process goes on
            removed = 0
        return CompactedStreams(replaced=replaced, written=written, removed=removed)

    def _compact(self) -> tuple[int, int] | None:
        """One step: how many tables were replaced by how many. None: there is too little to do."""
        from cumulant.data.streams.compaction import MOST_BATCHES, group_tables, next_window, with_tables

        state = self._state()
        rows = self._batches_after(state.number, MOST_BATCHES)
        window = next_window([batch_of(row) for row in rows])
        if not window:
            return None
        placed: dict[str, RowRange] = {}
        written = 0
        for name in ("rows", "refused"):
            for group in group_tables(self._small(window, name)):
                placed |= group.placed(self._write(group, name))
                written += 1
        changed = [(row, with_tables(batch, placed)) for row, batch in zip(rows, window, strict=False)]
        self._commit(changed, msgspec.structs.replace(state, number=window[-1].number), sorted(placed), written)
        return len(placed), written

    def _small(self, window: Sequence[StreamBatch], name: str) -> Iterator[tuple[Hashable, RowRange]]:
        """The small tables, whose rows are as they were written, with what of them must be equal."""
        from cumulant.data.streams.compaction import is_small

        tables = self._project.tables()
        for batch in window:
            table = getattr(batch, name)
            if not is_small(table):
                continue
            try:
                tables.check(table.key)
                schema = tuple(tables.scan(table.key).collect_schema().items())
                protection = tables.protection(table.key)
            except (NotFoundError, StorageError):  # who reads it is told; what is left of it stays as it is
                continue
            yield (schema, protection), table

    def _write(self, group: TableGroup, name: str) -> str:
        from cumulant.data.streams.records import table_key

        tables = self._project.tables()

        def frames() -> Iterator[pl.DataFrame]:
            for table in group.tables:
                yield tables.scan(table.key).collect()

        protect = tables.protection(group.tables[0].key)
        return tables.write(table_key(self._source, self._identity, group.content, name), frames(), protect=protect).key

    def _expire(self) -> int:
        """One step: the number of tables that nothing names any more."""
        from cumulant.data.streams.compaction import MOST_BATCHES

        policy = self._project.policies.sources.get(self._source)
        if policy is None or policy.keep_refused is None:
            return 0
        state, oldest = self._state(), self._now - policy.keep_refused
        rows = self._batches_after(state.expired, MOST_BATCHES)
        old = list(takewhile(lambda row: batch_of(row).at < oldest, rows))
        if not old:
            return 0
        last = batch_of(old[-1]).number
        # a table that was put together has batches of one step
        later = {
            batch.refused.key
            for batch in map(batch_of, self._batches_after(last, MOST_BATCHES))
            if batch.refused is not None
        }
        changed = [(row, msgspec.structs.replace(batch_of(row), refused=None)) for row in old]
        keys = {batch.refused.key for batch in map(batch_of, old) if batch.refused is not None} - later
        self._commit(changed, msgspec.structs.replace(state, expired=last), sorted(keys), 0)
        return len(keys) or int(len(old) == MOST_BATCHES)

    def _commit(
        self,
        changed: Sequence[tuple[Row, StreamBatch]],
        state: CompactionState,
        replaced: Sequence[str],
        written: int,
    ) -> None:
        from cumulant.data.streams.compaction import COMPACTION, REPLACED, ReplacedTables
        from cumulant.data.streams.records import BATCH, batch_value

        first, last = changed[0][1].number, changed[-1][1].number
        with self._project.journal().transaction(actor=self._actor) as transaction:
            self._lease.confirm(transaction)
            for row, batch in changed:
                if batch != batch_of(row):
                    transaction.put(BATCH, row.key, batch_value(batch), expect=row.version)
            transaction.put(COMPACTION, self._source, msgspec.to_builtins(state))
            if replaced:
                value = ReplacedTables(at=self._now, keys=tuple(replaced))
                transaction.put(REPLACED, f"{self._source}/{uuid.uuid4().hex}", msgspec.to_builtins(value))
                transaction.emit(
                    StreamCompacted(
                        source=self._source, first=first, last=last, replaced=len(replaced), written=written
                    )
                )

    def _remove(self) -> int:
        """Remove tables that were replaced before, unless a run may still read them."""
        journal, removed = self._project.journal(), 0
        replaced = _replaced(self._project, self._source)
        old = [(row, tables) for row, tables in replaced if tables.at <= self._now - GRACE]
        if not old or any(run.status == "running" and is_under_way(journal, run) for run in runs(journal)):
            return 0
        for row, tables in old:
            for key in tables.keys:
                self._project.tables().delete(key)
                removed += 1
            with journal.transaction(actor=self._actor) as transaction:
                self._lease.confirm(transaction)
                transaction.delete(row.kind, row.key)
        return removed

    def _state(self) -> CompactionState:
        from cumulant.data.streams.compaction import COMPACTION, CompactionState

        row = self._project.journal().get(COMPACTION, self._source)
        return CompactionState() if row is None else msgspec.convert(row.value, CompactionState)

    def _batches_after(self, number: int, limit: int) -> list[Row]:
        from cumulant.data.streams.records import BATCH, batch_key

        after = batch_key(self._source, number)
        return self._project.journal().rows(BATCH, f"{self._source}/", after=after, limit=limit)

"""One source of a stream and one table of online state that reads it: the table follows the source's batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cumulant.core.progress import Progress, silent
from cumulant.core.units import micros
from cumulant.data.row_columns import LATE
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.flows.data.stream_records import batches_after, find_batch, find_state
from cumulant.flows.features.stream_rows import StreamRows
from cumulant.flows.features.stream_status import has_other_history, other_history
from cumulant.flows.ledger.actions import verb

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import Field
    from cumulant.data.streams.records import StreamBatch
    from cumulant.features.ingested.batch_writer import EventBatchWriter
    from cumulant.flows.features.online_tables import OnlineTable
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: rows from which on no further batch is put in together with those before
_ROWS = 50_000


class AppliedSource(msgspec.Struct, frozen=True, kw_only=True):
    """What one call put into a table: `batch` is the last one that the table has. The counts are of `AdvanceResult`;
    `late`: rows that came too late. `error`: why it goes no further.
    """

    source: str
    table: str
    batch: int
    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    unkeyed: int = 0
    future: int = 0
    early: int = 0
    late: int = 0
    error: str | None = None


class _Target(NamedTuple):
    """What rows are put into, and the fields that are read of each row."""

    rows: StreamRows
    fields: list[Field]
    writer: EventBatchWriter


class StreamFollower:
    """Puts the batches of a source into a table. For one thread."""

    def __init__(self, project: Project, source: str, table: OnlineTable) -> None:
        self._project, self._source, self._table = project, source, table
        self._target: _Target | None = None
        self._batch = 0
        self._counts = Counter[str]()

    def step(self, principal: Principal, progress: Progress) -> bool:
        """Put in the next batches; whether there were any.

        Raises:
            CumulantError: the store or the journal does not answer; the table cannot be read or filled.
        """
        from cumulant.features.ingested.batch_writer import TableRefilledError
        from cumulant.features.online.entity_cache import is_filled

        state, _ = find_state(self._project, self._source)
        if state is None or (self._target is not None and state.batches == self._batch):
            return False
        if not is_filled(self._project.online(), self._table.name):
            self._target = None
            if not self._table.served:
                return False
            refill_table(self._project, self._table, principal=principal, progress=progress)
        target = self._target or _open(self._project, self._source, self._table)
        applied, content = target.writer.last()
        if has_other_history(self._project, self._source, applied, content):
            progress(f"{self._source}: {other_history(applied)}; {self._table.name} is filled again")
            self._target = None
            refill_table(self._project, self._table, principal=principal, progress=progress)
            return True
        if self._target is None or applied != self._batch:
            self._remember(target, applied)
        self._target, self._batch = target, applied
        batches = batches_after(self._project, self._source, applied, state.batches, rows=_ROWS)
        if not batches:
            return False
        try:
            self._apply(target, batches)
        except TableRefilledError:  # by another process; the table may lack other batches than before
            return True
        progress(f"{self._source}: {self._counts['rows']:,} rows in online features")
        return True

    def check(self) -> None:
        """Notice that the store lost the table, also where no batch comes.

        Raises:
            CumulantError: the store does not answer.
        """
        from cumulant.features.online.entity_cache import is_filled

        if self._target is not None and not is_filled(self._project.online(), self._table.name):
            self._target = None

    def result(self, error: str | None) -> AppliedSource:
        """What was put in so far."""
        counts = {name: self._counts[name] for name in ("rows", *AdvanceResult.__struct_fields__, "late")}
        del counts["unused"]
        return AppliedSource(source=self._source, table=self._table.name, batch=self._batch, error=error, **counts)

    def _apply(self, target: _Target, batches: Sequence[StreamBatch]) -> None:
        import polars as pl

        frames = [target.rows.of_batch(batch, target.fields) for batch in batches if batch.rows is not None]
        frame = pl.concat(frames) if frames else target.rows.typed(pl.DataFrame(), target.fields)
        last = batches[-1]
        result = target.writer.apply(last.number, frame, content=last.content)
        self._batch = last.number
        self._counts.update(msgspec.structs.asdict(result), rows=frame.height, late=int(frame[LATE].sum()))

    def _remember(self, target: _Target, applied: int) -> None:
        """Read the keys of the rows that the table has from batches, of the newest ones."""
        from cumulant.features.ingested.recent_keys import MOST_KEYS, RecentKeys

        key = self._table.plan.sources[self._source].key
        fields = [field for field in target.fields if field.name in key]
        frames, rows, number = list["pl.DataFrame"](), 0, applied
        while number > 0 and rows < MOST_KEYS:
            batch = find_batch(self._project, self._source, number)
            if batch is not None and batch.rows is not None:
                frames.append(target.rows.of_batch(batch, fields))
                rows += frames[-1].height
            number -= 1
        target.writer.recent = RecentKeys()
        for frame in reversed(frames):
            target.writer.remember(frame)


def _open(project: Project, source: str, table: OnlineTable) -> _Target:
    from cumulant.features.ingested.batch_writer import EventBatchWriter
    from cumulant.features.online.hashed_keys import HashedKeys
    from cumulant.features.online.state_writer import StateWriter

    hashed, of = HashedKeys.of(table.plan, project.salt), table.plan.sources[source]
    corrections = () if isinstance(of.corrections, msgspec.UnsetType) else of.corrections.fields
    fields = {field.name: field for field in (*of.fields, *corrections)}
    writer, skew = StateWriter(hashed.plan, project.online(), table.name), project.policies.clock_skew
    skew_us = None if skew is None else micros(skew)
    return _Target(
        StreamRows(project, source, hashed), [*fields.values()], EventBatchWriter(writer, source, skew_us=skew_us)
    )


@verb("features.materialize")
def refill_table(project: Project, table: OnlineTable, *, principal: Principal, progress: Progress = silent) -> None:
    """Fill a table that the online store lost, from the newest data.

    Raises:
        CumulantError: neither the newest data nor an earlier snapshot can be read; the store does not answer.
    """
    from cumulant.flows.ledger.run_context import open_run
    from cumulant.flows.maintenance.refill import fill_anew

    with open_run(project, "refill", principal=principal, progress=progress) as context:
        fill_anew(context, table.plan, table.name)

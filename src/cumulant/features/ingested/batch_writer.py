"""Batches of a source put into one table of online state.

What is put in is what a snapshot of the batches would have: of rows with one key the first one. Rows of which nothing
was posted become events at once (`entity_merge`); those that lack a column which becomes known later are logged too,
as those of a snapshot are, so that posts can complete them. Rows of which something was posted are merged with it in
the log, and enter from there.

The table's state names the last batch of which it has all rows, written with the last of them: after a kill the batch
is put in again, and rows that are there change nothing. A table that is filled again meanwhile has not the rows of the
changes before: each change compares which filling it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import RetryableError
from cumulant.data.row_columns import LATE, ROW
from cumulant.features.ingested.batch_events import BatchEvents, batch_events, first_moments
from cumulant.features.ingested.batch_log import BatchLog, PostedMeanwhileError
from cumulant.features.ingested.entity_merge import MergeRule, merge_entities
from cumulant.features.ingested.recent_keys import RecentKeys
from cumulant.features.offline.frames import inside
from cumulant.features.offline.kernel.timeline import Flags, Ints
from cumulant.features.offline.row_order import row_identities
from cumulant.features.online.carry_over import later_columns
from cumulant.features.online.state import STATE_KEY, TableState, encode
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.group_events import Changing, EntityChange, GroupWriter, TableUpdate
from cumulant.features.posted.post_reader import AdvanceResult, Post, PostReader
from cumulant.features.posted.posted_events import Inside, PostedRow, find_logged, log_table, row_key
from cumulant.features.posted.state_update import catch_up, commit, sum_results
from cumulant.ports.online import Cells

#: entities of one change; fewer in a store over a network, which answers no reader meanwhile
_MOST_ENTITIES, _MOST_REMOTE_ENTITIES = 20_000, 1_000
#: events of one change, likewise: those of an entity with many enter one by one, about 2,500 a second
_MOST_EVENTS, _MOST_REMOTE_EVENTS = 10_000, 2_000
#: seconds between two changes of a store over a network: other writers, who try for its lock each 2 ms, get in
_PAUSE = 0.004
#: logged rows of one change, likewise
_MOST_ROWS, _MOST_REMOTE_ROWS = 512, 128


class TableRefilledError(RetryableError):
    """The table was filled again since its state was read."""


class _Rows(NamedTuple):
    """Rows in their inside types, with the identity of each."""

    frame: pl.DataFrame
    identities: Ints

    def where(self, chosen: Flags) -> _Rows:
        return self if chosen.all() else _Rows(self.frame.filter(pl.Series(chosen)), self.identities[chosen])


class EventBatchWriter:
    """Puts batches of `source` into the table of `writer`, in their order. For one thread.

    Rows dated more than `skew_us` after now are left out (None: none is).
    """

    def __init__(self, writer: StateWriter, source: str, *, skew_us: int | None = None) -> None:
        self._writer, self._source, self._skew_us = writer, source, skew_us
        self._of = writer.plan.sources[source]
        self._reader = PostReader([writer], skew_us=skew_us)
        self._later = later_columns(self._of)
        remote = writer.store.remote
        self._most_entities = _MOST_REMOTE_ENTITIES if remote else _MOST_ENTITIES
        self._most_events = _MOST_REMOTE_EVENTS if remote else _MOST_EVENTS
        self._most_rows = _MOST_REMOTE_ROWS if remote else _MOST_ROWS
        #: which filling of the table is followed
        self._filling: tuple[str, int] | None = None
        self.recent = RecentKeys()
        #: the latest event time of the rows that are put in, in microseconds
        self._newest: int | None = None
        self._content: str | None = None

    def applied(self) -> int:
        """The last batch of which the table has all rows. The next `apply` goes on from there.

        Raises:
            EngineUnavailableError, IntegrityError: the table holds no state, or that of another plan.
        """
        return self.last()[0]

    def last(self) -> tuple[int, str | None]:
        """As `applied`, and the content of that batch where that is known."""
        state = self._writer.present_state()
        self._filling = _filling_of(state)
        return state.applied.get(self._source, 0), state.contents.get(self._source)

    def remember(self, frame: pl.DataFrame) -> None:
        """Rows of an earlier batch, with their keys, as `apply` has them."""
        self.recent.add(row_identities(frame.select(self._of.key), self._of))

    def apply(self, number: int, frame: pl.DataFrame, *, content: str | None = None) -> AdvanceResult:
        """Put in the rows of the batches after the last one up to this number, in their inside types (`read_fields`).
        Rows with `__late` come only as the first of their key, before which no other one counts. `content`: the digest
        of that of the last batch.

        Raises:
            TableRefilledError: the table was filled again since `applied` was read: read it, and go on from there.
            EngineUnavailableError, IntegrityError: the table holds no state, or that of another plan.
        """
        if self._filling is None:
            self.applied()
        self._newest, self._content = self._latest_time(frame), content
        if self._source in self._writer.versions:
            result = self._correct(_on_time(frame))
            self._writer.store.update(partial(self._put_nothing, number=number))
            return result
        rows, unkeyed = self._keyed(frame)
        while True:
            try:
                results = self._apply(number, rows)
            except PostedMeanwhileError:
                continue
            break
        self.recent.add(rows.identities)
        return sum_results([AdvanceResult(unkeyed=unkeyed), results])

    def _latest_time(self, frame: pl.DataFrame) -> int | None:
        """The latest event time that is not after the clock."""
        if self._of.event_time is None:
            return None
        times = frame[self._of.event_time].cast(pl.Int64)
        latest = times.filter(times <= self._writer.now_us()).max()
        return None if latest is None else int(latest)  # type: ignore[arg-type]

    def _keyed(self, frame: pl.DataFrame) -> tuple[_Rows, int]:
        """The rows that have their key, and how many have none."""
        keyed = frame.select(pl.all_horizontal(pl.col(name).is_not_null() for name in self._of.key)).to_series()
        rows = frame.filter(keyed)
        return _Rows(rows, row_identities(rows.select(self._of.key), self._of)), frame.height - rows.height

    def _present(self, rows: _Rows) -> _Rows:
        """Those that are not dated after now."""
        if self._skew_us is None:
            return rows
        limit = self._writer.now_us() + self._skew_us
        return rows.where(first_moments(self._writer.plan, self._source, rows.frame) <= limit)

    def _apply(self, number: int, rows: _Rows) -> AdvanceResult:
        every = len(rows.identities)
        rows = rows.where(_is_first(rows.identities) & ~self.recent.holds(rows.identities))
        firsts = len(rows.identities)
        # The first row of a key stands where it is dated after now, too: a process that begins now remembers it alike.
        rows = self._present(rows)
        left_out = AdvanceResult(duplicates=every - firsts, future=firsts - len(rows.identities))
        if LATE in rows.frame.columns:
            rows = rows.where(~rows.frame[LATE].to_numpy())
        table = log_table(self._writer.present_state().scope, self._source)
        following, posted = find_logged(self._writer.store, table, partial(_row_keys, rows.frame, self._of.key))
        posted_rows, others = rows, rows
        if posted:
            flags = np.array(posted, dtype=np.bool_)
            posted_rows, others = rows.where(flags), rows.where(~flags)
        results = [left_out, *(self._log(posted_rows) if posted else ())]
        log = BatchLog(self._writer.store, table, following, frozenset(others.identities.tolist()))
        for keys, values in self._slices(self._open_rows(others), self._most_entities):
            log.append(keys, values)
        added = self._merge(number, others, log)
        if log.own is not None and self._writer.present_state().marks.get(self._source, 0) < log.own[1]:
            catch_up(self._writer)
        results.append(AdvanceResult(accepted=added, duplicates=len(others.identities) - added))
        return sum_results(results)

    def _open_rows(self, rows: _Rows) -> _Rows:
        """Those of which a column that becomes known later is missing."""
        is_open = np.zeros(len(rows.identities), dtype=np.bool_)
        for name in self._later:
            is_open |= rows.frame[name].is_null().to_numpy()
        return rows.where(is_open)

    def _slices(self, rows: _Rows, count: int) -> Iterator[tuple[list[bytes], list[Inside]]]:
        """The keys and values of the rows as they are logged, so many at a time."""
        for part in rows.frame.select(field.name for field in self._of.fields).iter_slices(count):
            yield _row_keys(part, self._of.key), _present_values(part)

    def _log(self, rows: _Rows) -> Iterator[AdvanceResult]:
        """Log rows of which something was posted as posted ones, and put them into the table from there."""
        for keys, values in self._slices(rows, self._most_rows):
            posted = [PostedRow(key, row, {}) for key, row in zip(keys, values, strict=True)]
            yield from commit([self._writer], [Post(self._source, posted)], skew_us=self._skew_us)

    def _correct(self, frame: pl.DataFrame) -> AdvanceResult:
        """Rows of a source whose rows correct earlier ones, as posted."""
        results = []
        for part in frame.iter_slices(self._most_rows):
            post, left_out = self._reader.read(self._source, part.drop(ROW, LATE, strict=False).to_dicts())
            results += [left_out, *commit([self._writer], [post], skew_us=self._skew_us)]
        return sum_results(results)

    def _merge(self, number: int, rows: _Rows, log: BatchLog) -> int:
        """Put complete rows into the entities that they enter; how many of them changed one."""
        changes: list[Callable[..., Ints]] = []
        for group in self._writer.groups(self._source):
            events = batch_events(self._writer.plan, group.group, rows.frame)
            parts = events.parts(self._most_entities, self._most_events)
            changes += [partial(self._put, group=group, events=part, log=log) for part in parts]
        if not changes:
            changes.append(partial(self._put_nothing, log=log))
        changed = [np.empty(0, dtype=np.int64)]
        for change in changes:
            if self._writer.store.remote and change is not changes[0]:
                time.sleep(_PAUSE)
            # With the last of them the whole batch is there.
            last = number if change is changes[-1] else None
            changed.append(log.update(partial(change, number=last)))
        return pl.Series(np.concatenate(changed)).n_unique()

    def _put(self, cells: Cells, *, group: GroupWriter, events: BatchEvents, log: BatchLog, number: int | None) -> Ints:
        """One change of the table: the events of some entities; the identities of those that changed one."""
        writer = self._writer
        state = self._state(cells)
        log.check(cells)
        blobs = cells.get(writer.table, events.keys)
        stored = [None if blob is None else writer.decode(blob) for blob in blobs]
        version = state.sequence + 1
        rule = MergeRule(state.since_us, writer.now_us(), writer.rule(state).limit, version.to_bytes(8, "big"))
        merged = merge_entities(group.group, stored, events, rule)
        written: list[tuple[bytes, bytes | None]] = [*merged.blobs]
        update, changing = TableUpdate(), Changing()
        for at in merged.others:
            places = range(merged.events.starts[at], merged.events.starts[at + 1])
            changes = [merged.events.event(place) for place in places]
            named = [EntityChange((self._source, _name(event.identity)), event) for event in changes]
            changing[events.keys[at]] = (group, named)
        if changing:
            written += writer.place(cells, state, changing, update)
        after = msgspec.structs.replace(state, sequence=version) if written else state
        self._write(cells, after, written, log, number)
        others = [int.from_bytes(name, "little", signed=True) for _, name in update.changed]
        return np.concatenate((merged.added, np.array(others, dtype=np.int64)))

    def _put_nothing(self, cells: Cells, *, log: BatchLog | None = None, number: int | None) -> Ints:
        self._write(cells, self._state(cells), [], log, number)
        return np.empty(0, dtype=np.int64)

    def _state(self, cells: Cells) -> TableState:
        state = self._writer.state(cells)
        if _filling_of(state) != self._filling:
            raise TableRefilledError(
                f'the online state in "{self._writer.table}" was filled again meanwhile', subject=self._writer.table
            )
        return state

    def _write(
        self,
        cells: Cells,
        state: TableState,
        rows: Sequence[tuple[bytes, bytes | None]],
        log: BatchLog | None,
        number: int | None,
    ) -> None:
        """Write rows of the table; with the `number` of a batch that it has now."""
        if number is not None:
            applied, mark = state.applied.get(self._source, 0), state.marks.get(self._source, 0)
            contents = state.contents
            if number > applied:
                own = {} if self._content is None else {self._source: self._content}
                contents = {source: content for source, content in contents.items() if source != self._source} | own
            marks = state.marks if log is None else {**state.marks, self._source: log.mark_after(mark)}
            newest = state.newest
            if self._newest is not None and self._newest > newest.get(self._source, self._newest - 1):
                newest = {**newest, self._source: self._newest}
            state = msgspec.structs.replace(
                state,
                applied={**state.applied, self._source: max(applied, number)},
                contents=contents,
                marks=marks,
                newest=newest,
            )
        if rows or number is not None:
            cells.put(self._writer.table, [*rows, (STATE_KEY, encode(state))])


def _filling_of(state: TableState) -> tuple[str, int]:
    """What each filling of a table has of its own: the seed is random, but tables of earlier versions have none."""
    return state.generation, state.seed


def _on_time(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(~pl.col(LATE)) if LATE in frame.columns else frame


def _row_keys(frame: pl.DataFrame, key: Sequence[str]) -> list[bytes]:
    return [row_key(values) for values in inside(frame.select(key))]


def _present_values(frame: pl.DataFrame) -> list[Inside]:
    """The values of each row that are not null."""
    frame = frame.select(column for column in frame if column.null_count() < column.len())
    rows, names = inside(frame), frame.columns
    if not any(column.null_count() for column in frame):
        return [dict(zip(names, values, strict=True)) for values in rows]
    return [{name: value for name, value in zip(names, values, strict=True) if value is not None} for values in rows]


def _name(identity: int) -> bytes:
    return identity.to_bytes(8, "little", signed=True)


def _is_first(identities: Ints) -> Flags:
    """Which rows are the first of their key."""
    return pl.Series(identities).is_first_distinct().to_numpy()

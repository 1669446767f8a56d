"""Online state moves on: posted rows enter the windows and lookups of the plans that read their source.

The rule: a table holds what filling it from the snapshot and the posted rows together would put there, rows told of
at several times being one row (`posted`). So a row enters each group at its known time, as soon as enough of it is
known, however late or out of order it is told; and telling it again changes nothing. Needs no Polars.

A row also makes room: what lies further back than a group's longest span and a day (`LATE_US`) before the row's event,
or before the prediction for it if that comes first, is dropped, and predictions that would have seen it are answered
from what is left from then on. Room is made only up to the second newest event that is known by now: one row with a
wrong date drops nothing, nor does any number of rows of the future.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import msgspec

from cumulant.core.errors import RequestError, UsageError
from cumulant.core.plan import FeaturePlan, Field
from cumulant.features.dtypes import Kind
from cumulant.features.groups import Group, fingerprint, groups_of
from cumulant.features.placing import Entity, Event
from cumulant.features.posted import Inside, Record, SourceLog, Told, log_table, row_key
from cumulant.features.requests import Reader
from cumulant.features.rows import compile_node
from cumulant.features.shelf import checked_state
from cumulant.features.state import STATE_KEY, State, decode_events, encode, entity_key, row_identity
from cumulant.ports.online import Cells, OnlineStore

#: how late behind the newest event of an entity a prediction may be made
LATE_US = 86_400_000_000
#: source and key of a row in its log
_Row = tuple[str, bytes]
#: entries of a log that one update takes in, so that others wait less than about 0.1 s
_STEP = 1_000


class Advanced(msgspec.Struct, frozen=True):
    """What became of posted rows, each counted once.

    `duplicates` told nothing new. `unkeyed` have no key, or a null in it: nothing would tell a repetition of them from
    another row, so they are left out. `unused` belong to a source that no window and no lookup reads. `future` are
    dated further ahead than the declared skew of clocks, and are left out.
    """

    accepted: int = 0
    duplicates: int = 0
    unkeyed: int = 0
    unused: int = 0
    future: int = 0


class Post(NamedTuple):
    """Rows of a source that can be told."""

    source: str
    rows: list[Told]


def _now_us() -> int:
    return time.time_ns() // 1000


class StateWriter:
    """One table of one plan, as rows are put into it. `now_us` is the present moment in microseconds."""

    def __init__(
        self,
        plan: FeaturePlan,
        store: OnlineStore,
        table: str,
        *,
        now_us: Callable[[], int] = _now_us,
    ) -> None:
        self.plan, self.store, self.table, self.now_us = plan, store, table, now_us
        self.fingerprint = fingerprint(plan)
        self._groups: dict[str, list[_GroupWriter]] = {}
        for group in groups_of(plan):
            self._groups.setdefault(group.source, []).append(_GroupWriter(plan, group))

    @property
    def sources(self) -> frozenset[str]:
        """The sources whose rows matter to the table."""
        return frozenset(self._groups)

    def state(self, cells: Cells) -> State:
        """Raises EngineUnavailableError, IntegrityError: there is none, or one of another plan."""
        return checked_state(cells.get(self.table, [STATE_KEY])[0], self.table, self.fingerprint)

    def events(self, source: str, record: Record) -> list[tuple[bytes, Event]]:
        """The entities that a row of the log enters, each with its event there."""
        found = (group.event(record) for group in self._groups.get(source, []))
        return [one for one in found if one is not None]

    def take(self, cells: Cells, state: State, logs: Mapping[str, SourceLog]) -> _Taken:
        """Put what the logs hold beyond the state's marks into the table, up to a limit."""
        marks, touched = dict(state.marks), _Taken()
        changing: _Changing = {}
        for source, log in logs.items():
            rows, marks[source] = log.since(marks.get(source, 0), _STEP)
            touched.rows += len(rows)
            touched.behind |= marks[source] < log.next
            for key, record in rows:
                for group in self._groups[source]:
                    found = group.event(record)
                    if found is not None:
                        changing.setdefault(found[0], (group, []))[1].append(((source, key), found[1]))
        if marks != state.marks:
            blobs = self._placed(cells, state, changing, touched)
            after = msgspec.structs.replace(state, marks=marks, sequence=state.sequence + 1)
            cells.put(self.table, [*blobs, (STATE_KEY, encode(after))])
        return touched

    def _placed(self, cells: Cells, state: State, changing: _Changing, taken: _Taken) -> list[tuple[bytes, bytes]]:
        """The blobs of the entities that the events change."""
        written = []
        for (key, (group, events)), blob in zip(changing.items(), cells.get(self.table, list(changing)), strict=True):
            entity = Entity(group.group, None if blob is None else decode_events(blob), keyed=bool(group.key))
            changed = False
            for row, event in events:
                found = entity.place(event)
                changed |= bool(found)
                (taken.held if found is None else taken.moved).add(row)
            if changed and self._made_room(entity, state, max(event.told for _, event in events)):
                written.append((key, entity.blob(state.sequence + 1)))
        return written

    def _made_room(self, entity: Entity, state: State, newest: int) -> bool:
        """Drop what is too old; False where nothing is left, so that there is nothing to write."""
        # A correction may have become known long after all events: they stay, though `since` is its moment.
        own = None if entity.since is None else min(entity.since, entity.newest)
        floor = max((moment for moment in (state.since_us, own) if moment is not None), default=None)
        if floor is not None:
            entity.trim(floor)
        second = entity.second_newest(self.now_us())
        since = None if second is None else min(newest, second) - LATE_US
        if since is not None and (floor is None or since > floor) and entity.trim(since):
            entity.since = since if entity.since is None else max(since, entity.since)
        return not entity.empty


class _Taken:
    """Of what a table took in: how many rows, those it held in full already, those that moved it, whether more wait."""

    def __init__(self) -> None:
        self.rows = 0
        self.held: set[_Row] = set()
        self.moved: set[_Row] = set()
        self.behind = False


class _GroupWriter:
    """Rows as events of one group."""

    def __init__(self, plan: FeaturePlan, group: Group) -> None:
        source = plan.sources[group.source]
        assert source.event_time is not None, "a source of windows and lookups has an event time"
        self.group, self.key = group, source.key
        self._event_time = source.event_time
        self._told = _dated(plan, group.source)
        columns: dict[str, Kind] = {field.name: field.dtype for field in source.fields}
        self._readers = {field.name: Reader([field]) for field in source.fields}
        self._empty: Inside = dict.fromkeys(columns)
        self._values = [compile_node(node, columns) for node in group.values]

    def event(self, record: Record) -> tuple[bytes, Event] | None:
        """The entity's key and the event; None as long as the row does not enter."""
        row = {**self._empty, **record.values}
        if record.other:
            row |= self._read(record.other)
        by = [row[column] for column in self.group.by]
        enters = self._enters(row)
        if enters is None or None in by:
            return None
        identity = row_identity([row[column] for column in self.key])
        values = [value(row, {}) for value in self._values]
        told = self._told(row)
        assert told is not None, "a row that enters has an event time"
        return entity_key(self.group.number, by), Event(enters, record.position, identity, told, values)

    def _read(self, other: Inside) -> Inside:
        """Columns that came before this plan, which reads them, was there; what does not fit them is null."""
        found: Inside = {}
        for name in other.keys() & self._readers.keys():
            try:
                found |= self._readers[name].read(other)
            except RequestError:
                continue
        return found

    def _enters(self, row: Inside) -> int | None:
        entry = self.group.entry
        times = [(row[self._event_time], entry.delay_us), *((row[name], delay) for name, delay in entry.columns)]
        if any(moment is None for moment, _ in times):
            return None
        enters: int = max(moment + delay for moment, delay in times)
        return enters


#: events by the key of their entity
_Changing = dict[bytes, tuple[_GroupWriter, list[tuple[_Row, Event]]]]


class PostReader:
    """Posted rows as the plans of some tables need them. Rows that are dated more than `skew_us` after now are left
    out; None: none are.
    """

    def __init__(self, writers: Sequence[StateWriter], *, skew_us: int | None = None) -> None:
        self._skew_us = skew_us
        self._now_us = writers[0].now_us if writers else _now_us
        self._dated: dict[str, list[Callable[[Inside], int | None]]] = {}
        fields: dict[str, dict[str, Field]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        for writer in writers:
            for name in writer.sources:
                source = writer.plan.sources[name]
                fields.setdefault(name, {}).update({field.name: field for field in source.fields})
                self._keys[name] = source.key
                self._dated.setdefault(name, []).append(_dated(writer.plan, name))
        self._readers = {name: Reader(tuple(of.values())) for name, of in fields.items()}

    def read(self, source: str, rows: Sequence[Mapping[str, object]]) -> tuple[Post, Advanced]:
        """The rows that can be taken, and the count of those that cannot.

        Raises:
            RequestError: a value does not fit its field.
        """
        if source not in self._readers:
            return Post(source, []), Advanced(unused=len(rows))
        found = [self._told(source, row) for row in rows]
        keyed = [told for told in found if told is not None]
        present = [told for told in keyed if not self._ahead(source, told.values)]
        return Post(source, present), Advanced(unkeyed=len(found) - len(keyed), future=len(keyed) - len(present))

    def is_ahead(self, source: str, row: Mapping[str, object]) -> bool:
        """Whether a row that could be taken is left out because of its date.

        Raises:
            RequestError: a value does not fit its field.
        """
        told = self._told(source, row) if source in self._readers else None
        return told is not None and self._ahead(source, told.values)

    def _ahead(self, source: str, values: Inside) -> bool:
        if self._skew_us is None:
            return False
        limit = self._now_us() + self._skew_us
        return any((at := dated(values)) is not None and at > limit for dated in self._dated[source])

    def _told(self, source: str, row: Mapping[str, object]) -> Told | None:
        """None for a row without its key."""
        read = self._readers[source].read(row)
        key = [read[name] for name in self._keys[source]]
        if not key or None in key:
            return None
        values = {name: value for name, value in read.items() if value is not None}
        other = {name: plain for name in row if name not in read and (plain := _plain(row[name])) is not None}
        return Told(row_key(key), values, other)


def _dated(plan: FeaturePlan, source: str) -> Callable[[Inside], int | None]:
    """When a row of the source is told first: its event, or the prediction for it if that comes first."""
    event_time = plan.sources[source].event_time
    predict_at = plan.predict_at if plan.entity == source else None

    def dated(values: Inside) -> int | None:
        event: int | None = None if event_time is None else values.get(event_time)
        moment: int | None = None if predict_at is None else values.get(predict_at.column)
        if moment is None or predict_at is None:
            return event
        moment += predict_at.offset_us
        return moment if event is None else min(event, moment)

    return dated


def _plain(value: object) -> object:
    """A single value of a column that no plan reads, as it can be stored; None for what cannot."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) if -(2**63) <= value < 2**63 else None
    return value if isinstance(value, bool | str | bytes | date) else None


def advance(writers: Sequence[StateWriter], source: str, rows: Sequence[Mapping[str, object]]) -> Advanced:
    """Let rows of a source into all these tables, which lie in one store; durable when this returns.

    Raises:
        RequestError: a value does not fit its field.
        EngineUnavailableError, IntegrityError: a table holds no state, or that of another plan.
    """
    post, left_out = PostReader(writers).read(source, rows)
    (done,) = commit(writers, [post])
    return total([left_out, done])


def commit(writers: Sequence[StateWriter], posts: Sequence[Post]) -> list[Advanced]:
    """Let posts into all these tables in one transaction, and say of each what became of it."""
    if not any(post.rows for post in posts):
        return [Advanced() for _ in posts]
    found, behind = writers[0].store.update(lambda cells: _Update(cells, writers).commit(posts))
    if behind:
        for writer in writers:
            catch_up(writer)
    return found


def catch_up(writer: StateWriter) -> int:
    """Take in what the logs of the table's sources hold and it does not; how many rows that was."""
    count, behind = 0, True
    while behind:
        found = writer.store.update(lambda cells: _Update(cells, [writer]).take())
        count, behind = count + found.rows, found.behind
    return count


def total(counts: Iterable[Advanced]) -> Advanced:
    sums: Any = dict.fromkeys(Advanced.__struct_fields__, 0)
    for one in counts:
        for name in sums:
            sums[name] += getattr(one, name)
    return Advanced(**sums)


class _Update:
    """One transaction over the logs of the sources and the tables that read them."""

    def __init__(self, cells: Cells, writers: Sequence[StateWriter]) -> None:
        self._cells = cells
        self._states = [(writer, writer.state(cells)) for writer in writers]
        scopes = {state.scope for _, state in self._states}
        if len(scopes) != 1:
            raise UsageError(f"tables of several scopes ({', '.join(sorted(scopes))}) do not advance together")
        (self._scope,) = scopes
        self._logs: dict[str, SourceLog] = {}

    def commit(self, posts: Sequence[Post]) -> tuple[list[Advanced], bool]:
        told = [self._tell(post) for post in posts]
        taken = self.take()
        # What the snapshot held in full already is nothing new either, though the log had not heard of it.
        known = taken.held - taken.moved
        counts = []
        for keys, post in zip(told, posts, strict=True):
            accepted = sum(key not in known for key in keys)
            counts.append(Advanced(accepted=accepted, duplicates=len(post.rows) - accepted))
        return counts, taken.behind

    def take(self) -> _Taken:
        """Every table takes in what it has not yet; the logs are saved."""
        every = _Taken()
        for writer, state in self._states:
            logs = {source: self._log(source) for source in sorted(writer.sources)}
            taken = writer.take(self._cells, state, logs)
            every.rows += taken.rows
            every.held |= taken.held
            every.moved |= taken.moved
            every.behind |= taken.behind
        for log in self._logs.values():
            log.save()
        return every

    def _tell(self, post: Post) -> list[_Row]:
        """The rows that told something new."""
        log = self._log(post.source)
        log.load(told.key for told in post.rows)
        return [(post.source, told.key) for told in post.rows if log.tell(told)]

    def _log(self, source: str) -> SourceLog:
        if source not in self._logs:
            self._logs[source] = SourceLog(self._cells, log_table(self._scope, source))
        return self._logs[source]

"""Fill the online store from the history, so that the server can answer at any moment from `since` on."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from cumulant.core.errors import DataError
from cumulant.core.plan import FeaturePlan, Source
from cumulant.core.progress import Progress, silent
from cumulant.core.units import from_micros, to_micros
from cumulant.data.corrections.dated_rows import is_in_force
from cumulant.data.row_columns import FROM
from cumulant.features.offline.frames import (
    entry_time,
    entry_times,
    inside,
    inside_as,
    key_codes,
    kinds,
    numbers,
    read_fields,
    scan_fields,
    valid,
)
from cumulant.features.offline.groups import MeasureGroup, event_columns, fingerprint, groups_of
from cumulant.features.offline.kernel.timeline import Flags, Ints, Timeline
from cumulant.features.offline.row_order import row_identities, tie_order
from cumulant.features.offline.versions import has_versions, latest_changes
from cumulant.features.offline.windows import evaluate_node
from cumulant.features.online.carry_over import reconcile_logs
from cumulant.features.online.fill_budget import FillBudget
from cumulant.features.online.state import (
    FORMAT,
    STATE_KEY,
    Events,
    Slot,
    TableState,
    encode,
    entity_key,
    typecode,
)
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TILES, TileRule, entity_rows
from cumulant.features.posted.event_expiry import latest_dropped
from cumulant.features.posted.state_update import catch_up
from cumulant.features.posted.stored_versions import corrected_sources, trim_log, version_blobs
from cumulant.ports.online import OnlineStore

#: keys between two reports of progress
_REPORTED = 5_000
#: bytes of the hash of a row and of all
_HASH_BYTES = 16


class MaterializationReport(msgspec.Struct, frozen=True):
    """What was stored: events (`rows`), entities over all groups, and the bytes of their blobs."""

    rows: int
    entities: int
    as_of: datetime | None
    since: datetime | None
    bytes: int
    generation: str


def materialize(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    store: OnlineStore,
    *,
    table: str,
    as_of: datetime | None = None,
    since: datetime | None = None,
    scope: str = "",
    deletions: Mapping[str, pl.LazyFrame | pl.DataFrame] | None = None,
    tiles: TileRule = TILES,
    applied: Mapping[str, int] | None = None,
    progress: Progress = silent,
    memory: int | None = None,
    scratch: Path | None = None,
) -> MaterializationReport:
    """Replace `table` by the events that the plan's windows and lookups can see from `since` on.

    Rows that are not known in full yet are logged beside it, so that later posts can complete them.

    Args:
        plan: what will be served.
        frames: the rows of each source of the plan, in source order.
        store: where to; readers of it see the old table or the new one.
        table: the name that `OnlineFeatures` is given.
        as_of: leave out what became known later; None takes everything.
        since: the earliest prediction moment to answer for. Defaults to `as_of`; None with it keeps all events.
        scope: names the logs of posted rows; tables of one scope share them. Rows of the log that are not in `frames`
            are carried over.
        deletions: of sources whose posted rows correct earlier ones, the deletions in force (`data.scan_deletions`), so
            that a posted row that is older than the deletion of its key stays out.
        tiles: which entities are divided, as by all writers of the table.
        applied: of sources of streams, the last batch of those whose rows are in `frames`.
        progress: is told the source, the keys written so far, and the share that is done.
        memory: about the most bytes that this process may hold meanwhile; None: any number. Events that need more are
            partitioned by their keys on disk. The content is the same.
        scratch: the folder for them; None: the system's temporary one.

    Returns:
        What was stored. Two fillings of equal content have one generation, unless an entity has tiles.

    Raises:
        DataError: a frame or column is absent, or has another type than when the plan was made.
        UsageError: one key has more rows than fit, or the rows of a source with corrections do.
        StorageError: the disk is full.
    """
    start = since if since is not None else as_of
    filling = _Materialization(plan, frames, as_of, start, scope)
    filling.deletions, filling.applied, filling.progress = deletions or {}, dict(applied or {}), progress
    filling.budget = None if memory is None else FillBudget.of(memory, scratch)
    filling.tiles = tiles if tiles.seed else tiles._replace(seed=secrets.randbits(64))
    store.swap(table, filling.rows())
    block = None if filling.budget is None else filling.budget.block
    reconcile_logs(plan, frames, store, scope=scope, as_of=as_of, versions=filling.versions, block=block)
    for name in filling.versions:
        trim_log(plan, name, store, scope=scope, table=table, newest=filling.reaches(name))
    if groups_of(plan):
        catch_up(StateWriter(plan, store, table, tiles=tiles))
    done = MaterializationReport(
        rows=filling.events,
        entities=filling.entities,
        as_of=as_of,
        since=start,
        bytes=filling.bytes,
        generation=filling.generation,
    )
    store.put_meta(table, {key: str(value) for key, value in msgspec.structs.asdict(done).items()})
    return done


def entity_events(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    state: TableState,
    keys: Collection[bytes],
) -> dict[bytes, Events]:
    """The events of some entities as `materialize` would store them, for a table with this `state`; no other rows are
    read.
    """
    as_of, since = (None if at is None else from_micros(at) for at in (state.as_of_us, state.since_us))
    filling, wanted = _Materialization(plan, frames, as_of, since, state.scope), set(keys)
    events: dict[bytes, Events] = {}
    for group in groups_of(plan):
        entities = [values for number, *values in map(msgspec.msgpack.decode, keys) if number == group.number]
        if not entities:
            continue
        source = plan.sources[group.source]
        frame = read_fields(group.source, source.fields, frames[group.source])
        by = pl.DataFrame(entities, schema=list(group.by), orient="row")
        by = by.select(inside_as(name, frame[name].dtype) for name in group.by)
        rows = frame.join(by, on=group.by, how="semi", maintain_order="left")
        events |= {key: of for key, of in filling.entities_of(group, source, rows) if key in wanted}
    return events


class _Materialization:
    """The rows of a table, one group after the other, counted and hashed as they pass."""

    def __init__(
        self,
        plan: FeaturePlan,
        frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
        as_of: datetime | None,
        since: datetime | None,
        scope: str,
    ) -> None:
        self._plan, self._frames, self._scope = plan, frames, scope
        self._as_of_time = as_of
        self._as_of = None if as_of is None else to_micros(as_of)
        self._since = None if since is None else to_micros(since)
        #: sources of which the table holds the rows in force
        self.versions = corrected_sources(plan)
        self.deletions: Mapping[str, pl.LazyFrame | pl.DataFrame] = {}
        self.applied: dict[str, int] = {}
        self.tiles, self.progress = TILES, silent
        self._newest: dict[str, int] = {}
        self.budget: FillBudget | None = None
        self.events = self.entities = self.bytes = 0
        self._content = 0

    @property
    def generation(self) -> str:
        """The hash of the definition and of the rows so far, in whatever order they came."""
        content = self._content.to_bytes(_HASH_BYTES, "big")
        return hashlib.blake2b(fingerprint(self._plan).encode() + content, digest_size=_HASH_BYTES).hexdigest()

    def _hashed(self, key: bytes, blob: bytes) -> tuple[bytes, bytes]:
        row = hashlib.blake2b(len(key).to_bytes(4, "big") + key, digest_size=_HASH_BYTES)
        row.update(blob)
        self._content = (self._content + int.from_bytes(row.digest(), "big")) % (1 << 8 * _HASH_BYTES)
        return key, blob

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        for group in groups_of(self._plan):
            source = self._plan.sources[group.source]
            if group.source not in self._frames:
                raise DataError(f"the rows of {group.source} are needed for its features", subject=group.source)
            before, done = self.events, 0
            for frame in self._frames_of(group, source):
                self._note_newest(source, frame)
                for number, (entity, events) in enumerate(self.entities_of(group, source, frame)):
                    if number % _REPORTED == 0:
                        self._report(group, (len(events.times) // 8 + done) / max(self.events - before, 1))
                    done += len(events.times) // 8
                    self.entities += 1
                    for key, blob in entity_rows(entity, events, self.tiles):
                        self.bytes += len(blob)
                        yield self._hashed(key, blob)
        for name in self.versions:
            rows, gone = self._frames[name], self.deletions.get(name)
            if self.budget is not None:
                self.budget.check_whole(self._plan.sources[name], rows)
            for key, blob in version_blobs(self._plan, name, rows, self._as_of_time, deletions=gone):
                yield self._hashed(key, blob)
        yield STATE_KEY, encode(self._state())

    def _frames_of(self, group: MeasureGroup, source: Source) -> Iterator[pl.DataFrame]:
        """The rows of a group's source that may be events, in one frame or in several of other keys."""
        names = event_columns(group, source) | {*source.key, *([source.event_time] if source.event_time else ())}
        fields = [field for field in source.fields if field.name in names]
        rows = scan_fields(group.source, fields, self._frames[group.source])
        if self._since is not None and not group.unlimited and FROM not in rows.collect_schema():
            rows = rows.filter(entry_time(source, group.entry) > self._since - group.span_us)
        if self.budget is None:
            yield rows.collect()
        else:
            yield from self.budget.frames(group, rows)

    def reaches(self, name: str) -> int | None:
        """The moment that a source's rows reach to, in microseconds."""
        if self._as_of is not None:
            return self._as_of
        time = self._plan.sources[name].event_time
        assert time is not None, "a source of windows and lookups has an event time"
        fields = [field for field in self._plan.sources[name].fields if field.name == time]
        newest = scan_fields(name, fields, self._frames[name]).select(pl.col(time).max()).collect().item()
        return None if newest is None else to_micros(newest)

    def _state(self) -> TableState:
        return TableState(
            format=FORMAT,
            fingerprint=fingerprint(self._plan),
            generation=self.generation,
            as_of_us=self._as_of,
            since_us=self._since,
            rows=self.events,
            entities=self.entities,
            scope=self._scope,
            versions=self.versions,
            seed=self.tiles.seed,
            applied=self.applied,
            # Above that of every earlier filling, so that no reader takes a blob for one that it knows.
            sequence=time.time_ns() // 1000,
            newest=self._newest,
        )

    def _report(self, group: MeasureGroup, share: float) -> None:
        whole = (group.number + min(share, 1.0)) / len(groups_of(self._plan))
        self.progress(f"{group.source} by {', '.join(group.by)}: {self.entities:,} keys", whole)

    def _note_newest(self, source: Source, frame: pl.DataFrame) -> None:
        """Note the latest event time that is not after the clock, nor after the moment of the state."""
        if source.event_time is None or not frame.height:
            return
        times = numbers(frame[source.event_time].drop_nulls())
        now = time.time_ns() // 1000
        past = times[times <= (now if self._as_of is None else min(self._as_of, now))]
        if len(past):
            self._newest[source.name] = max(int(past.max()), self._newest.get(source.name, int(past.max())))

    def entities_of(self, group: MeasureGroup, source: Source, frame: pl.DataFrame) -> Iterator[tuple[bytes, Events]]:
        times, keys = entry_times(frame, source, group.entry), key_codes([frame], group.by)[0]
        enters = keys >= 0
        if (known := valid(times)) is not None:
            enters &= known
        if self._as_of is not None:
            enters &= numbers(times) <= self._as_of
        if has_versions(frame):
            enters &= frame.select(is_in_force(self._as_of)).to_series().to_numpy()
        positions = np.flatnonzero(enters)
        ties = tie_order(group, source, frame)
        timeline = Timeline(keys[positions], numbers(times)[positions], positions, ties)
        seen = np.flatnonzero(self._seen(group, timeline, source, frame))
        if not len(seen):
            return
        order, codes, moments = timeline.order[seen], timeline.keys[seen], timeline.times[seen]
        self.events += len(order)
        starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
        packed = _PackedGroup(group, source, frame, order, moments)
        entities = inside(frame.select(group.by)[order[starts]])
        changes = latest_changes(frame, keys, self._as_of)
        for lo, hi, values in zip(starts, [*starts[1:], len(codes)], entities, strict=True):
            since = changes.get(int(keys[order[lo]]))
            key = entity_key(group.number, values)  # type: ignore[arg-type]
            yield key, packed.events(int(lo), int(hi), since)

    def _seen(self, group: MeasureGroup, timeline: Timeline, source: Source, frame: pl.DataFrame) -> Flags:
        """Sorted events that some prediction from `since` on can see. Where rows can be deleted later, a lookup
        without a limit may come to see any of them.
        """
        if self._since is None or (group.unlimited and group.source in self.versions):
            return np.ones(len(timeline), dtype=np.bool_)
        seen: Flags = timeline.times > self._since - group.span_us
        if group.unlimited:
            after = np.ones(len(timeline), dtype=np.bool_)
            after[:-1] = (timeline.keys[1:] != timeline.keys[:-1]) | (timeline.times[1:] > self._since)
            seen |= after
        if group.takes_latest_ever and source.event_time is not None and len(seen):
            starts = np.flatnonzero(np.concatenate(([True], timeline.keys[1:] != timeline.keys[:-1])))
            event_times, gone = numbers(frame[source.event_time])[timeline.order], np.add.reduceat(~seen, starts)
            latest, exists = latest_dropped(timeline.keys, event_times, starts, gone)
            seen[latest[exists]] = True
        return seen


class _PackedGroup:
    """The columns of a group as bytes, from which entities are cut."""

    def __init__(self, group: MeasureGroup, source: Source, frame: pl.DataFrame, order: Ints, moments: Ints) -> None:
        self._times = moments.tobytes()
        self._columns = [
            _Column(evaluate_node(node, frame, kinds(source.fields)).gather(order), typecode(kind))
            for node, kind in zip(group.values, group.kinds, strict=True)
        ]
        self._identities = row_identities(frame.select(source.key)[order], source).tobytes() if source.key else None
        self._event_times: bytes | None = None
        if group.orders_by_event_time and source.event_time is not None:
            self._event_times = numbers(frame[source.event_time].gather(order)).tobytes()

    def events(self, lo: int, hi: int, since: int | None) -> Events:
        identities = None if self._identities is None else self._identities[lo * 8 : hi * 8]
        event_times = None if self._event_times is None else self._event_times[lo * 8 : hi * 8]
        slots = tuple([column.cut(lo, hi) for column in self._columns])
        since_us = None if since is None else (since, None)  # rows were corrected then; nothing is dropped
        return Events(self._times[lo * 8 : hi * 8], slots, identities, event_times, since_us)


class _Column:
    def __init__(self, series: pl.Series, code: str | None) -> None:
        known = valid(series)
        self._valid = None if known is None or code is None else known.tobytes()
        self._texts: list[str | None] | None = series.to_list() if code is None else None
        self._data = b""
        if code == "d":
            self._data = series.fill_null(0.0).to_numpy().tobytes()
        elif code == "q":
            self._data = numbers(series).tobytes()

    def cut(self, lo: int, hi: int) -> Slot:
        flags = None if self._valid is None else self._valid[lo:hi]
        texts = None if self._texts is None else self._texts[lo:hi]
        return Slot(self._data[lo * 8 : hi * 8], texts, None if flags is None or 0 not in flags else flags)

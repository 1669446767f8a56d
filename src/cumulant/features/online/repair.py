"""Inspection and repair of one key's stored events: rebuilt from the history without what was posted of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from cumulant.core.errors import UsageError
from cumulant.core.expr import Column, columns
from cumulant.core.plan import FeaturePlan
from cumulant.core.units import from_micros
from cumulant.features.offline.groups import MeasureGroup, groups_of
from cumulant.features.offline.row_identity import row_identity
from cumulant.features.online.entity_cache import check_state
from cumulant.features.online.entity_history import EntityHistory
from cumulant.features.online.entity_reads import read_history, unreadable
from cumulant.features.online.materialization import entity_events
from cumulant.features.online.requests import RequestReader, as_written
from cumulant.features.online.state import STATE_KEY, Events, TableState, encode, entity_key
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TILES, TileRule, decode_entity, row_keys
from cumulant.features.posted.event_columns import GroupEvent
from cumulant.features.posted.event_insert import Entity
from cumulant.features.posted.posted_events import POSTED, LoggedRow, SourceLog, key_values, log_table
from cumulant.features.posted.row_versions import decode_version, version_key
from cumulant.features.posted.stored_versions import version_blobs
from cumulant.features.posted.version_writer import VersionWriter
from cumulant.ports.online import Cells, OnlineStore

_STEP = 10_000


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as windows see it: when it became known, and the values that they read of it."""

    known: datetime
    values: dict[str, Any]


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """Stored state of a key for some windows and lookups. Moments before `since` are answered from what remains."""

    source: str
    key: dict[str, Any]
    features: tuple[str, ...]
    events: int
    #: of these, the events that become known after now
    future: int
    since: datetime | None = None
    newest: tuple[StoredEvent, ...] = ()


class ForgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """How many posted rows were deleted, and how many entities were made again from the history."""

    rows: int
    entities: int


def read_key(
    plan: FeaturePlan, store: OnlineStore, table: str, key: Mapping[str, object], *, now: datetime, newest: int = 10
) -> tuple[StoredKey, ...]:
    """The stored state of the key, a group of windows and lookups each, with its `newest` events.

    Raises:
        UsageError: no window or lookup is by these columns.
        RequestError: a value does not fit its column.
    """
    stored_keys = []
    for group, values in _entities(plan, key):
        history = read_history(store, table, entity_key(group.number, values), group.kinds)
        stored_keys.append(_describe_key(plan, group, values, history, now=now, newest=newest))
    return tuple(stored_keys)


def forget_key(
    plan: FeaturePlan,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    store: OnlineStore,
    table: str,
    key: Mapping[str, object],
    *,
    after: datetime | None = None,
    deletions: Mapping[str, pl.LazyFrame | pl.DataFrame] | None = None,
    tiles: TileRule = TILES,
) -> ForgetReport:
    """Delete what was posted of the key, or what of it is dated `after` a moment, and make its entities again.

    The key has all columns of a window or lookup and no other: rows that share a part of it alone are other keys'.
    The state of every entity that a deleted row entered is computed again, from `frames` and from the rows that stay
    posted. Other tables of the same log keep what they took in; those that are filled later do not read it. A row that
    was posted as a correction gets the values of the history again. Posted deletions stay: deleted rows do not come
    back.

    Raises:
        UsageError, RequestError: as `read_key`.
        IntegrityError: what is stored of an entity cannot be read, so that it is unknown where its tiles lie.
    """
    writer = StateWriter(plan, store, table, tiles=tiles)
    own = {entity_key(group.number, values) for group, values in _entities(plan, key) if set(group.by) == set(key)}
    if not own:
        raise _no_group(groups_of(plan), key)
    rows, entities = store.update(lambda cells: _find_posted(cells, writer, own, after))
    state = check_state(store.get(table, [STATE_KEY])[0], table, writer.fingerprint)
    before = _versions_before(writer, frames, state, rows, deletions=deletions or {})
    entities |= {
        key
        for name, versions in before.items()
        for blob in versions.values()
        for _, key, _ in writer.versions[name].events(None if blob is None else decode_version(blob))
    }
    events = entity_events(plan, frames, state, entities)
    store.update(lambda cells: _rebuild(cells, writer, rows, entities, events, before=before))
    return ForgetReport(rows=sum(len(keys) for keys in rows.values()), entities=len(entities))


def _entities(plan: FeaturePlan, key: Mapping[str, object]) -> list[tuple[MeasureGroup, list[Any]]]:
    """The groups that are by columns of the key, each with the values in its order, in their inside form."""
    groups = groups_of(plan)
    matching = [group for group in groups if set(group.by) <= set(key)]
    if not matching:
        raise _no_group(groups, key)
    result = []
    for group in matching:
        fields = {field.name: field for field in plan.sources[group.source].fields}
        written = {name: as_written(fields[name], key[name]) for name in group.by}
        read = RequestReader([fields[name] for name in group.by]).read(written)
        result.append((group, [read[name] for name in group.by]))
    return result


def _no_group(groups: Sequence[MeasureGroup], key: Mapping[str, object]) -> UsageError:
    known = " or ".join(dict.fromkeys(" ".join(f"{name}=VALUE" for name in group.by) for group in groups))
    return UsageError(
        f"no window and no lookup is by {', '.join(key) or 'nothing'}",
        subject=", ".join(key),
        hint=f"write {known}" if known else "the features of this model are all of the row itself",
    )


def _describe_key(
    plan: FeaturePlan,
    group: MeasureGroup,
    values: list[Any],
    history: EntityHistory | None,
    *,
    now: datetime,
    newest: int,
) -> StoredKey:
    times = [] if history is None else list(history.times)
    labels = _labels(plan, group)
    shown = range(max(0, len(times) - newest), len(times))
    events = [
        StoredEvent(
            known=from_micros(times[at]),
            values={label: history.values[slot].all(at, at + 1)[0] for slot, label in labels.items()},
        )
        for at in shown
        if history is not None
    ]
    return StoredKey(
        source=group.source,
        key=dict(zip(group.by, values, strict=True)),
        features=tuple(group.measures),
        events=len(times),
        future=sum(from_micros(at) > now for at in times),
        since=None if history is None or history.since is None else from_micros(history.since),
        newest=tuple(events),
    )


def _labels(plan: FeaturePlan, group: MeasureGroup) -> dict[int, str]:
    """The values of an event that may be shown, by position: those made of personal columns are left out."""
    personal = {field.name for field in plan.sources[group.source].fields if field.personal}
    users = {slot: name for name, slot in reversed(group.slots.items())}
    return {
        slot: node.name if isinstance(node, Column) else users[slot]
        for slot, node in enumerate(group.values)
        if not columns(node) & personal
    }


def _records(log: SourceLog) -> Iterator[tuple[bytes, LoggedRow]]:
    """Every row that the log holds."""
    mark = log.first
    while mark < log.next:
        rows, mark = log.since(mark, _STEP)
        yield from rows


def _find_posted(
    cells: Cells, writer: StateWriter, own: set[bytes], after: datetime | None
) -> tuple[dict[str, set[bytes]], set[bytes]]:
    """The posted rows to delete, by source, and the entities to make again."""
    state, rows, entities = writer.state(cells), dict[str, set[bytes]](), set(own)
    for source in sorted(writer.sources):
        for key, record in _records(SourceLog(cells, log_table(state.scope, source))):
            # Rows of the snapshot that wait for a column lie in the log too; they are no posted rows.
            if record.position < POSTED:
                continue
            events = _entity_events(cells, writer, state, source, key=key, record=record)
            if not own & {entity for entity, _ in events}:
                continue
            if after is not None and all(from_micros(event.first_moment) <= after for _, event in events):
                continue
            rows.setdefault(source, set()).add(key)
            entities |= {entity for entity, _ in events}
    return rows, entities


def _entity_events(
    cells: Cells, writer: StateWriter, state: TableState, source: str, *, key: bytes, record: LoggedRow
) -> list[tuple[bytes, GroupEvent]]:
    """The entities that a row of the log is in, each with its event: as the row in force completes it."""
    versions = writer.versions_in(state, source)
    if versions is None:
        return writer.events(source, record)
    (stored,) = versions.stored(cells, writer.table, [key_values(key)])
    versioned = versions.events(stored) if stored is not None and not stored.is_stored else []
    return [*writer.events(source, record), *((entity, event) for _, entity, event in versioned)]


def _versions_before(
    writer: StateWriter,
    frames: Mapping[str, pl.LazyFrame | pl.DataFrame],
    state: TableState,
    rows: Mapping[str, set[bytes]],
    *,
    deletions: Mapping[str, pl.LazyFrame | pl.DataFrame],
) -> dict[str, dict[bytes, bytes | None]]:
    """The stored versions of rows before they were posted, by source and the place in the table."""
    as_of = None if state.as_of_us is None else from_micros(state.as_of_us)
    blobs_by_source: dict[str, dict[bytes, bytes | None]] = {}
    for source, keys in rows.items():
        if writer.versions_in(state, source) is not None:
            missing = dict.fromkeys(version_key(source, key_values(key)) for key in keys)
            gone = deletions.get(source)
            blobs = version_blobs(writer.plan, source, frames[source], as_of, deletions=gone, keys=keys)
            blobs_by_source[source] = missing | dict(blobs)
    return blobs_by_source


def _rebuild(
    cells: Cells,
    writer: StateWriter,
    rows: Mapping[str, set[bytes]],
    entities: set[bytes],
    events: Mapping[bytes, Events],
    *,
    before: Mapping[str, Mapping[bytes, bytes | None]],
) -> None:
    state = writer.state(cells)
    groups = {group.number: group for group in groups_of(writer.plan)}
    rebuilt: dict[bytes, Entity] = {}
    for key in entities:
        group = groups[msgspec.msgpack.decode(key)[0]]
        keyed = bool(writer.plan.sources[group.source].key)
        rebuilt[key] = Entity(group, events.get(key), keyed=keyed, key=key, rule=writer.rule(state))
    for source in sorted(writer.sources):
        log = SourceLog(cells, log_table(state.scope, source))
        posted = [(key, record) for key, record in _records(log) if key not in rows.get(source, ())]
        posted.sort(key=lambda keyed: keyed[1].entry)
        versions = writer.versions_in(state, source)
        if versions is not None:
            _place_versions(cells, writer.table, versions, posted, rebuilt)
        else:
            for _, record in posted:
                for key, event in writer.events(source, record):
                    if key in rebuilt:
                        rebuilt[key].place(event)
        if source in rows:
            log.load(rows[source])
            log.forget(rows[source], log.first)
            log.note_loss(writer.now_us())
            log.save()
    sequence = state.sequence + 1
    written: dict[bytes, bytes | None] = {}
    for (key, entity), blob in zip(rebuilt.items(), cells.get(writer.table, [*rebuilt]), strict=True):
        written |= dict.fromkeys(_rows_before(writer.table, key, blob))
        written |= dict(entity.no_rows() if entity.empty else entity.rows(sequence))
    for rows_before in before.values():
        written |= rows_before
    written[STATE_KEY] = encode(msgspec.structs.replace(state, sequence=sequence))
    cells.put(writer.table, written.items())


def _rows_before(table: str, key: bytes, blob: bytes | None) -> list[bytes]:
    """Where the table holds an entity with this blob."""
    try:
        return [] if blob is None else row_keys(key, decode_entity(blob))
    except msgspec.MsgspecError as error:
        raise unreadable(table) from error


def _place_versions(
    cells: Cells,
    table: str,
    versions: VersionWriter,
    posted: Sequence[tuple[bytes, LoggedRow]],
    rebuilt: Mapping[bytes, Entity],
) -> None:
    """Let posted versions that are in force take the place of what the history has of their rows."""
    there = {key: entity.identities for key, entity in rebuilt.items() if versions.has(key)}
    keys = [key_values(key) for key, _ in posted]
    for (_, record), values, stored in zip(posted, keys, versions.stored(cells, table, keys), strict=True):
        version = versions.after(record, stored) or stored
        if version is None or version.is_stored:
            continue
        identity = row_identity(values)
        touched = [rebuilt[key] for key, identities in there.items() if identity in identities]
        for entity in touched:
            entity.remove(identity)
        for _, key, event in versions.events(version):
            if key in rebuilt:
                rebuilt[key].place(event)
                touched.append(rebuilt[key])
        for entity in touched:
            if version.begins is not None:
                entity.changed_at(version.begins)

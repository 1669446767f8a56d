"""The writer of one table of online state: it puts the rows of its sources' logs into the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from cumulant.core.plan import FeaturePlan
from cumulant.features.offline.groups import fingerprint, groups_of
from cumulant.features.online.entity_cache import check_state
from cumulant.features.online.entity_reads import unreadable
from cumulant.features.online.state import STATE_KEY, Events, TableState, encode
from cumulant.features.online.tiles import TILES, TiledEvents, TileRule, decode_entity
from cumulant.features.posted.event_columns import GroupEvent
from cumulant.features.posted.event_expiry import expiry_of
from cumulant.features.posted.event_insert import Entity
from cumulant.features.posted.group_events import Changing, EntityChange, GroupWriter, TableUpdate
from cumulant.features.posted.posted_events import Inside, LoggedRow, SourceLog
from cumulant.features.posted.row_versions import corrections_of
from cumulant.features.posted.version_writer import VersionWriter
from cumulant.ports.online import Cells, OnlineStore

#: entries of a log that one update takes in, so that others wait less than about 0.1 s
_STEP = 1_000


def present_us() -> int:
    """The present moment by the system's clock, in microseconds."""
    return time.time_ns() // 1000


class StateWriter:
    """One table of one plan, as rows are put into it. `now_us` is the present moment in microseconds; `tiles`: which
    entities are divided, as in all fillings of the table.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        store: OnlineStore,
        table: str,
        *,
        now_us: Callable[[], int] = present_us,
        tiles: TileRule = TILES,
    ) -> None:
        self.plan, self.store, self.table, self.now_us, self.tiles = plan, store, table, now_us, tiles
        self.fingerprint = fingerprint(plan)
        self._groups: dict[str, list[GroupWriter]] = {}
        for group in groups_of(plan):
            self._groups.setdefault(group.source, []).append(GroupWriter(plan, group))
        self.versions = {
            name: VersionWriter(plan, name, groups)
            for name, groups in self._groups.items()
            if corrections_of(plan.sources[name]) is not None and plan.sources[name].key
        }

    @property
    def sources(self) -> frozenset[str]:
        """The sources whose rows matter to the table."""
        return frozenset(self._groups)

    def groups(self, source: str) -> list[GroupWriter]:
        """The groups of windows and lookups that read the source."""
        return self._groups.get(source, [])

    def state(self, cells: Cells) -> TableState:
        """Raises EngineUnavailableError, IntegrityError: there is none, or one of another plan."""
        return self._state_of(cells.get(self.table, [STATE_KEY])[0])

    def present_state(self) -> TableState:
        """As `state`, as it is now, apart from any change."""
        return self._state_of(self.store.get(self.table, [STATE_KEY])[0])

    def _state_of(self, blob: bytes | None) -> TableState:
        return check_state(blob, self.table, self.fingerprint)

    def rule(self, state: TableState) -> TileRule:
        """Which entities are divided, and where."""
        return self.tiles._replace(seed=state.seed)

    def versions_in(self, state: TableState, source: str) -> VersionWriter | None:
        """The writer of versions of the source's rows; None where the table does not hold the rows in force."""
        return self.versions.get(source) if source in state.versions else None

    def events(self, source: str, record: LoggedRow) -> list[tuple[bytes, GroupEvent]]:
        """The entities that a row of the log enters, each with its event there."""
        events = (group.event(record) for group in self._groups.get(source, []))
        return [event for event in events if event is not None]

    def take(
        self, cells: Cells, state: TableState, logs: Mapping[str, SourceLog], sent: Mapping[str, Sequence[Inside]]
    ) -> TableUpdate:
        """Put what the logs hold beyond the state's marks into the table, up to a limit. `sent`: rows that the sources
        sent now, which tell how fresh they are also where requests had all of their values.
        """
        marks, newest, touched = dict(state.marks), dict(state.newest), TableUpdate()
        changing: Changing = {}
        versions: list[tuple[bytes, bytes]] = []
        for source, log in logs.items():
            rows, marks[source] = log.since(marks.get(source, 0), _STEP)
            touched.rows += len(rows)
            touched.behind |= marks[source] < log.next
            own = [record.values for _, record in rows if not record.scored]
            self._note_newest(newest, source, [*own, *sent.get(source, ())])
            writer = self.versions_in(state, source)
            if writer is not None:
                versions += writer.take(cells, self.table, rows, changing, touched)
                continue
            for key, record in rows:
                for group in self._groups[source]:
                    event = group.event(record)
                    if event is not None:
                        changing.setdefault(event[0], (group, []))[1].append(EntityChange((source, key), event[1]))
        if marks != state.marks or newest != state.newest:
            blobs = self.place(cells, state, changing, touched)
            after = msgspec.structs.replace(state, marks=marks, sequence=state.sequence + 1, newest=newest)
            cells.put(self.table, [*blobs, *versions, (STATE_KEY, encode(after))])
        return touched

    def _note_newest(self, newest: dict[str, int], source: str, rows: Iterable[Inside]) -> None:
        column, now = self.plan.sources[source].event_time, self.now_us()
        times = (row.get(column) for row in rows) if column else ()
        latest = max((time for time in times if time is not None and time <= now), default=None)
        if latest is not None and latest > newest.get(source, latest - 1):
            newest[source] = latest

    def place(
        self, cells: Cells, state: TableState, changing: Changing, update: TableUpdate
    ) -> list[tuple[bytes, bytes | None]]:
        """The blobs of the entities that the events change."""
        written: list[tuple[bytes, bytes | None]] = []
        rule, version = self.rule(state), state.sequence + 1
        end = version.to_bytes(8, "big")
        for (key, (group, changes)), blob in zip(changing.items(), cells.get(self.table, list(changing)), strict=True):
            stored = self.decode(blob)
            events = group.append(stored, changes, table_since=state.since_us, limit=rule.limit, version=end)
            if events is not None:
                update.changed.add(changes[0].row)
                written.append((key, encode(events)))
                continue
            read = partial(cells.get, self.table)
            entity = Entity(group.group, stored, keyed=bool(group.key), key=key, read=read, rule=rule)
            changed = _change(entity, changes, update)
            moments = [change.event.first_moment for change in changes if change.event is not None]
            if changed and self._expire_events(entity, state, max(moments, default=None), group):
                written += entity.rows(version)
            elif changed and blob is not None:  # nothing is left; the change is still recorded
                written += entity.no_rows() if entity.since is None else entity.rows(version)
        return written

    def decode(self, blob: bytes | None) -> Events | TiledEvents | None:
        """The blob of an entity. Raises IntegrityError: it is damaged."""
        try:
            return None if blob is None else decode_entity(blob)
        except msgspec.MsgspecError as error:
            raise unreadable(self.table) from error

    def _expire_events(self, entity: Entity, state: TableState, newest: int | None, group: GroupWriter) -> bool:
        """Drop events that are too old; False where none is left, so that there is nothing to write."""
        if entity.empty or (group.group.unlimited and self.versions_in(state, group.group.source) is not None):
            return not entity.empty  # where the newest row is deleted, a lookup finds the one before, however old
        expiry = expiry_of(state.since_us, entity.kept, entity.second_newest(self.now_us()), newest)
        if expiry.floor is not None:
            entity.trim(expiry.floor)
        if expiry.since is not None:
            entity.expire(expiry.since)
        return not entity.empty


def _change(entity: Entity, changes: Sequence[EntityChange], update: TableUpdate) -> bool:
    """Make the changes of an entity; whether there was any."""
    entity.prepare(event for each in changes for event in (each.event, each.remove) if event is not None)
    changed = False
    for change in changes:
        gone = change.remove
        removed = gone is not None and entity.remove(gone.identity, gone)
        placed = None if change.event is None else entity.place(change.event)
        changed |= removed or bool(placed)
        (update.known if placed is None and not removed else update.changed).add(change.row)
        if change.begins is not None:
            entity.changed_at(change.begins)
    return changed

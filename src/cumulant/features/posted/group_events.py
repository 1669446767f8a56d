"""Rows of a source as events of the windows and lookups that read it, and their changes of entities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cumulant.core.errors import RequestError
from cumulant.core.plan import FeaturePlan
from cumulant.features.definition.dtypes import Kind
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.row_identity import row_identity
from cumulant.features.online.python_compiler import compile_node
from cumulant.features.online.requests import RequestReader
from cumulant.features.online.state import Events, entity_key
from cumulant.features.online.tiles import TiledEvents
from cumulant.features.posted.event_append import EventAppender
from cumulant.features.posted.event_columns import GroupEvent
from cumulant.features.posted.posted_events import Inside, LoggedRow

#: source and key of a row in its log
LogRow = tuple[str, bytes]


class TableUpdate:
    """The rows that a table read: how many, those it had in full, those that changed it, whether more are waiting."""

    def __init__(self) -> None:
        self.rows = 0
        self.known: set[LogRow] = set()
        self.changed: set[LogRow] = set()
        self.behind = False


class EntityChange(NamedTuple):
    """A change of an entity: a row's event takes the place of the one to `remove`, of a version that `begins` then."""

    row: LogRow
    event: GroupEvent | None
    remove: GroupEvent | None = None
    begins: int | None = None


class GroupWriter:
    def __init__(self, plan: FeaturePlan, group: MeasureGroup) -> None:
        source = plan.sources[group.source]
        assert source.event_time is not None, "a source of windows and lookups has an event time"
        self.group, self.key = group, source.key
        self._appender = EventAppender(self.group, keyed=bool(self.key))
        self._event_time = source.event_time
        self._first_moment = first_moment(plan, group.source)
        columns: dict[str, Kind] = {field.name: field.dtype for field in source.fields}
        self._readers = {field.name: RequestReader([field]) for field in source.fields}
        self._empty: Inside = dict.fromkeys(columns)
        self._values = [compile_node(node, columns) for node in group.values]

    def event(self, record: LoggedRow) -> tuple[bytes, GroupEvent] | None:
        """The entity's key and the event; None as long as the row does not enter."""
        return None if record.deleted else self.event_of(self.row(record))

    def row(self, record: LoggedRow) -> Inside:
        """The columns of a row of the log that the plan reads."""
        return {**record.values, **self._read(record.other)} if record.other else record.values

    def event_of(self, values: Inside) -> tuple[bytes, GroupEvent] | None:
        """As `event`, of the values of a row; what is not there is null."""
        row = values if self._empty.keys() <= values.keys() else self._empty | values
        by = [row[column] for column in self.group.by]
        enters = self._enters(row)
        if enters is None or None in by:
            return None
        identity = row_identity([row[column] for column in self.key])
        none: Inside = {}
        read = [value(row, none) for value in self._values]
        first = self._first_moment(row)
        assert first is not None, "a row that enters has an event time"
        return entity_key(self.group.number, by), GroupEvent(enters, row[self._event_time], identity, first, read)

    def append(
        self,
        stored: Events | TiledEvents | None,
        changes: Sequence[EntityChange],
        *,
        table_since: int | None,
        limit: int,
        version: bytes,
    ) -> Events | None:
        """An entity after its changes, where they only append one event to it; else None."""
        if len(changes) != 1 or isinstance(stored, TiledEvents):
            return None
        (_, event, removed, begins) = changes[0]
        if event is None or removed is not None or begins is not None:
            return None
        return self._appender.append(stored, event, table_since=table_since, limit=limit, version=version)

    def _read(self, other: Inside) -> Inside:
        """Columns that came before this plan, which reads them, was there; what does not fit them is null."""
        values: Inside = {}
        for name in other.keys() & self._readers.keys():
            try:
                values |= self._readers[name].read(other)
            except RequestError:
                continue
        return values

    def _enters(self, row: Inside) -> int | None:
        enters: int | None = row[self._event_time]
        if enters is None:
            return None
        enters += self.group.entry.delay_us
        for name, delay in self.group.entry.columns:
            known = row[name]
            if known is None:
                return None
            enters = max(enters, known + delay)
        return enters


#: by the key of an entity
Changing = dict[bytes, tuple[GroupWriter, list[EntityChange]]]


def first_moment(plan: FeaturePlan, source: str) -> Callable[[Inside], int | None]:
    """The function of a row's first moment: its event, or the prediction for it if that comes first."""
    event_time = plan.sources[source].event_time
    predict_at = plan.predict_at if plan.entity == source else None

    def moment_of(values: Inside) -> int | None:
        event: int | None = None if event_time is None else values.get(event_time)
        moment: int | None = None if predict_at is None else values.get(predict_at.column)
        if moment is None or predict_at is None:
            return event
        moment += predict_at.offset_us
        return moment if event is None else min(event, moment)

    return moment_of

"""Rows of a source as events of the windows and lookups that read it, and what they change of entities."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cumulant.core.errors import RequestError
from cumulant.core.plan import FeaturePlan
from cumulant.features.definition.dtypes import Kind
from cumulant.features.offline.groups import Group
from cumulant.features.online.python_compiler import compile_node
from cumulant.features.online.requests import Reader
from cumulant.features.online.state import entity_key, row_identity
from cumulant.features.posted.event_insert import Event
from cumulant.features.posted.posted_events import Inside, Record

#: source and key of a row in its log
LogRow = tuple[str, bytes]


class Taken:
    """Of what a table took in: how many rows, those it held in full already, those that moved it, whether more wait."""

    def __init__(self) -> None:
        self.rows = 0
        self.held: set[LogRow] = set()
        self.moved: set[LogRow] = set()
        self.behind = False


class Change(NamedTuple):
    """What a row changes of an entity: the row with this key is taken out, its event put in; a version that corrects or
    deletes another one `begins` then.
    """

    row: LogRow
    event: Event | None
    remove: int | None = None
    begins: int | None = None


class GroupWriter:
    """Rows as events of one group."""

    def __init__(self, plan: FeaturePlan, group: Group) -> None:
        source = plan.sources[group.source]
        assert source.event_time is not None, "a source of windows and lookups has an event time"
        self.group, self.key = group, source.key
        self._event_time = source.event_time
        self._told = dated(plan, group.source)
        columns: dict[str, Kind] = {field.name: field.dtype for field in source.fields}
        self._readers = {field.name: Reader([field]) for field in source.fields}
        self._empty: Inside = dict.fromkeys(columns)
        self._values = [compile_node(node, columns) for node in group.values]

    def event(self, record: Record) -> tuple[bytes, Event] | None:
        """The entity's key and the event; None as long as the row does not enter."""
        return None if record.deleted else self.event_of(self.row(record), record.position)

    def row(self, record: Record) -> Inside:
        """The columns of a row of the log that the plan reads."""
        return {**record.values, **self._read(record.other)} if record.other else record.values

    def event_of(self, values: Inside, position: int) -> tuple[bytes, Event] | None:
        """As `event`, of the values of a row; what is not there is null."""
        row = {**self._empty, **values}
        by = [row[column] for column in self.group.by]
        enters = self._enters(row)
        if enters is None or None in by:
            return None
        identity = row_identity([row[column] for column in self.key])
        read = [value(row, {}) for value in self._values]
        told = self._told(row)
        assert told is not None, "a row that enters has an event time"
        return entity_key(self.group.number, by), Event(enters, position, identity, told, read)

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


#: by the key of an entity
Changing = dict[bytes, tuple[GroupWriter, list[Change]]]


def dated(plan: FeaturePlan, source: str) -> Callable[[Inside], int | None]:
    """When a row of the source is told first: its event, or the prediction for it if that comes first."""
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

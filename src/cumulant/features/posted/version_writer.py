"""Versions of posted rows in a table of online state: the new version replaces the previous one in its entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cumulant.core.plan import FeaturePlan
from cumulant.features.online.state import encode
from cumulant.features.posted.event_columns import GroupEvent
from cumulant.features.posted.group_events import Changing, EntityChange, GroupWriter, LogRow, TableUpdate
from cumulant.features.posted.posted_events import LoggedRow, key_values
from cumulant.features.posted.row_versions import (
    StoredVersion,
    VersionRule,
    corrections_of,
    decode_version,
    version_columns,
    version_key,
)
from cumulant.ports.online import Cells


class VersionWriter:
    """Versions of a source's rows, put in the place of those that a table holds."""

    def __init__(self, plan: FeaturePlan, source: str, groups: Sequence[GroupWriter]) -> None:
        of = plan.sources[source]
        corrections = corrections_of(of)
        assert corrections is not None
        self.source, self.key, self._groups = source, of.key, groups
        self.columns = version_columns(plan, of)
        self.rule = VersionRule(corrections, [field.name for field in of.fields], self.columns)

    def has(self, entity: bytes) -> bool:
        """Whether an entity is of a window or lookup of this source."""
        return msgspec.msgpack.decode(entity)[0] in {group.group.number for group in self._groups}

    def stored(self, cells: Cells, table: str, keys: Sequence[Sequence[Any]]) -> list[StoredVersion | None]:
        """The rows in force of these keys in a table."""
        blobs = cells.get(table, [version_key(self.source, key) for key in keys])
        return [None if blob is None else decode_version(blob) for blob in blobs]

    def after(self, record: LoggedRow, stored: StoredVersion | None) -> StoredVersion | None:
        """The stored version after a row of the log; None where it stays."""
        row = self._groups[0].row(record)
        return self.rule.stored_after(record, {name: row[name] for name in self.columns if name in row}, stored)

    def events(self, version: StoredVersion | None) -> list[tuple[GroupWriter, bytes, GroupEvent]]:
        """The entities that a version enters, each with its event there."""
        if version is None or version.deleted:
            return []
        events = ((group, group.event_of(version.values)) for group in self._groups)
        return [(group, *event) for group, event in events if event is not None]

    def take(
        self, cells: Cells, table: str, rows: Sequence[tuple[bytes, LoggedRow]], changing: Changing, update: TableUpdate
    ) -> Iterator[tuple[bytes, bytes]]:
        """Record the changes of entities by rows of the log, and yield the versions that they put in force."""
        keys = [key_values(key) for key, _ in rows]
        for (key, record), values, stored in zip(rows, keys, self.stored(cells, table, keys), strict=True):
            row, after = (self.source, key), self.after(record, stored)
            if after is None or (stored is not None and _is_same_version(stored, after)):
                update.known.add(row)
            else:
                update.changed.add(row)
                self._note(row, stored, after, changing)
            if after is not None:
                yield version_key(self.source, values), encode(after)

    def _note(self, row: LogRow, stored: StoredVersion | None, after: StoredVersion, changing: Changing) -> None:
        old = {key: (group, event) for group, key, event in self.events(stored)}
        new = {key: (group, event) for group, key, event in self.events(after)}
        for key in old.keys() | new.keys():
            group, gone, come = (old.get(key) or new[key])[0], old.get(key), new.get(key)
            if (
                gone is not None
                and come is not None
                and _is_same_event(gone[1], come[1], dated=group.group.orders_by_event_time)
            ):
                continue
            begins = None if stored is None else after.begins
            replaced, event = (None if each is None else each[1] for each in (gone, come))
            change = EntityChange(row, event, replaced, begins)
            changing.setdefault(key, (group, []))[1].append(change)


def _is_same_version(version: StoredVersion, other: StoredVersion) -> bool:
    return version.deleted == other.deleted and (version.deleted or version.values == other.values)


def _is_same_event(event: GroupEvent, other: GroupEvent, *, dated: bool) -> bool:
    """Whether windows and lookups see no difference of a row's events; `dated`: event times decide their order."""
    if event.time != other.time or event.values != other.values:
        return False
    return not dated or event.event_time == other.event_time

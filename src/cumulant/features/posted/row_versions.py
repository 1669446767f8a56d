"""Corrections and deletions that are posted to a source with `on_repeat: latest`. Needs msgspec only.

A table of online state holds, beside the events, the row in force of every key (`StoredVersion`) with the entities that
it entered. A posted row is completed by the row in force and replaces it by the rule of `data.corrections.versions`: a
later known time wins, of equal ones the greater sequence, of equal ones the last arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cumulant.core.errors import RequestError
from cumulant.core.plan import Corrections, FeaturePlan, Field, Source
from cumulant.features.offline.groups import event_columns, groups_of
from cumulant.features.offline.row_identity import key_form
from cumulant.features.online.requests import RequestReader
from cumulant.features.online.state import encode
from cumulant.features.posted.posted_events import POSTED, Inside, LoggedRow, PostedRow

_PREFIX = b"\x00row"


class StoredVersion(msgspec.Struct, array_like=True):
    """The row in force of a key as a table holds it: the non-null values of the columns that its plan reads.

    `known`, `arrived` (where known) and `begins` (None: the start) in microseconds. A deletion has no values but its
    sequence.
    """

    position: int
    values: Inside
    known: int | None = None
    arrived: int | None = None
    begins: int | None = None
    deleted: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether it is of a snapshot."""
        return self.position < POSTED

    def record(self, columns: Iterable[str]) -> LoggedRow:
        """The row as one of the log; of a snapshot's row the nulls in `columns` are values too."""
        nulls = dict.fromkeys(columns) if self.is_stored and not self.deleted else {}
        over = (True, self.known) if self.is_stored else (False, None)
        own = (self.known, self.arrived, self.begins, self.deleted)
        return LoggedRow(self.position, -1, nulls | self.values, {}, *own, *over)


decode_version = msgspec.msgpack.Decoder(StoredVersion).decode


def version_key(source: str, values: Sequence[Any]) -> bytes:
    """Where a table holds the row in force of a key; values in their inside form."""
    return _PREFIX + encode([source, *key_form(values)])


def corrections_of(source: Source) -> Corrections | None:
    return None if isinstance(source.corrections, msgspec.UnsetType) else source.corrections


def version_columns(plan: FeaturePlan, source: Source) -> tuple[str, ...]:
    """The columns that a stored version has: those that windows and lookups read, the key, and what orders versions."""
    read = {name for group in groups_of(plan) if group.source == source.name for name in event_columns(group, source)}
    corrections = corrections_of(source)
    order = () if corrections is None else corrections.order
    return tuple(sorted({*read, *source.key, *(field.name for field in order)}))


class VersionRule:
    """Which of two rows of a key is in force.

    The plans that read a source share its log, and may declare other sequences or none. So no place is stored: a rule
    reads the sequence that it knows from a row's values, whichever plan they were read by.
    """

    def __init__(self, corrections: Corrections, columns: Iterable[str] = (), stored: Iterable[str] = ()) -> None:
        """`columns` are those of the source that the plan reads, `stored` those that the table holds of a row."""
        self._known = tuple(field.name for field in corrections.known)
        declared = corrections.sequence
        self._sequence = None if isinstance(declared, msgspec.UnsetType) or not self._known else _Sequence(declared)
        self._marker = None if corrections.marker is None else corrections.marker.name
        self._deletes = frozenset(corrections.deletes)
        self._columns, self._stored = tuple(columns), tuple(stored)

    @property
    def priority(self) -> tuple[str, str]:
        """The greatest of several plans decides which rows their log takes; one with a sequence before others."""
        return ("", "") if self._sequence is None else (self._sequence.name, self._sequence.dtype)

    def known_time(self, values: Mapping[str, Any]) -> int | None:
        """The known time of a row in microseconds; None where none is declared or present."""
        return max((at for name in self._known if (at := values.get(name)) is not None), default=None)

    def version_after(self, row: PostedRow, before: LoggedRow | None, *, entry: int, now: int) -> LoggedRow | None:
        """The row in force after a posted row; None where that changes nothing.

        Args:
            row: the posted row. A column that it has, as null too, is corrected; others stay.
            before: the row in force so far.
            entry: the number of the entry in the log.
            now: the moment at which it is accepted, in microseconds.
        """
        if row.scored:
            return _fill_missing(row, before, entry)
        deleted = self._marker is not None and row.values.get(self._marker) in self._deletes
        values, other = self._complete(row, before, deleted=deleted)
        known = self.known_time(values)
        if deleted and self._known and known is None:
            known = now
        after = LoggedRow(POSTED, entry, values, other, known, now, None, deleted)
        after.whole = not deleted and before is not None and (before.deleted or before.whole)
        if before is None:
            return after
        after.over, after.over_known, after.arrived = before.over, before.over_known, max(now, before.arrived or now)
        if self._place(after) < self._place(before):
            return None
        if deleted and before.deleted:  # a deletion that is repeated counts from its first, up to its last known time
            repeated = msgspec.structs.replace(before, known=known, values=values, other=other, entry=entry)
            return repeated if self._place(after) > self._place(before) else None
        if not deleted and not before.deleted and _adds_nothing(row, before):
            return None
        after.begins = self._begins(after, before, row)
        return after

    @staticmethod
    def is_early(after: LoggedRow, before: LoggedRow | None, limit: int) -> bool:
        """Whether a version corrects or deletes with a known time after `limit`, before which it must not count."""
        if after.known is None or after.known <= limit or (before is not None and before.known == after.known):
            return False
        return after.deleted or after.begins == after.known

    def _complete(self, row: PostedRow, before: LoggedRow | None, *, deleted: bool) -> tuple[Inside, Inside]:
        if deleted or before is None:
            return row.values, row.other
        if before.deleted:  # a restored row has nothing of the row before
            return dict.fromkeys(self._columns) | row.values, row.other
        values = {name: value for name, value in before.values.items() if name not in row.other} | row.values
        return values, {name: value for name, value in before.other.items() if name not in row.values} | row.other

    def _begins(self, after: LoggedRow, before: LoggedRow, row: PostedRow) -> int | None:
        """Since when a version is in force that follows another one."""
        if before.arrived is None and not before.over:
            return None  # a scored row, or one that was posted before rows could be corrected, is no version
        if _rank(after.known) > _rank(before.known):
            return after.known
        if self._place(after) > self._place(before):
            return before.begins  # in its place
        fills = not after.deleted and all(before.values.get(name) in (None, row.values[name]) for name in row.values)
        return before.begins if fills and not before.deleted else after.arrived

    def supersedes(self, record: LoggedRow, stored: StoredVersion) -> bool:
        """Whether a posted row is in force where a table holds another one."""
        place, other = self._place(record, stored), self._place(stored)
        if place != other:
            return place > other
        if not stored.is_stored:
            return True
        if stored.arrived is not None:
            return _rank(record.arrived) >= stored.arrived
        # When the version of the snapshot came is not known: later, unless the row was posted over it.
        return record.over and record.over_known == stored.known

    def latest(self, record: LoggedRow | None, stored: Iterable[StoredVersion]) -> LoggedRow | None:
        """The row in force of what the log and the tables hold of a key."""
        latest = record
        for version in stored:
            if latest is None or not self.supersedes(latest, version):
                latest = version.record(self._stored)
                continue
            if self._sequence is not None and self._sequence.is_open(latest):
                latest = msgspec.structs.replace(latest, values=latest.values | self._sequence.values(version))
            if version.is_stored and (not latest.over or _rank(latest.over_known) < _rank(version.known)):
                latest = msgspec.structs.replace(latest, over=True, over_known=version.known)
        return latest

    def stored_after(self, record: LoggedRow, values: Inside, stored: StoredVersion | None) -> StoredVersion | None:
        """The stored version after a row of the log that has these `values` in its columns; None where it stays."""
        current: Inside = {} if stored is None or stored.deleted else stored.values
        before: Inside = {} if record.whole else current
        if stored is None or self.supersedes(record, stored):
            merged = {} if record.deleted else _present(before | values)
            if self._sequence is not None:  # of a deletion too, and where the plan's windows and lookups do not read it
                merged |= self._sequence.values(record)
            own = (record.known, record.arrived, record.begins, record.deleted)
            after = StoredVersion(record.position, merged, *own)
            if stored is not None and record.deleted == stored.deleted and (record.deleted or merged == current):
                same = (after.arrived, self._place(after)) == (stored.arrived, self._place(stored))
                new = {"values": merged, "known": after.known, "arrived": after.arrived}
                return None if same else msgspec.structs.replace(stored, **new)
            return after
        # A scored row, or one of a log from before rows could be corrected, fills what the row of a snapshot lacks.
        if record.arrived is not None or stored.arrived is not None or stored.deleted:
            return None
        filled = _present(values) | current
        return None if filled == current else msgspec.structs.replace(stored, values=filled)

    def _place(
        self, version: LoggedRow | StoredVersion, over: StoredVersion | None = None
    ) -> tuple[bool, int, bool, int | str]:
        """Versions of a key in their order; without a known time before those with one, which a sequence orders.

        `over`: the version that a posted row may follow, and has the sequence of where its post left that out.
        """
        known, sequence = version.known, None
        if self._sequence is not None and known is not None:
            open_ = over is not None and isinstance(version, LoggedRow) and self._sequence.is_open(version)
            sequence = self._sequence.of(over if open_ and over is not None else version)
        return known is not None, known or 0, sequence is not None, 0 if sequence is None else sequence


class _Sequence:
    """The sequence of rows as one plan declares it."""

    def __init__(self, field: Field) -> None:
        self.name, self.dtype = field.name, field.dtype
        self._inside, self._reader = str if field.dtype == "str" else int, RequestReader([field])

    def of(self, version: LoggedRow | StoredVersion) -> int | str | None:
        """None where a row has none, or none of this type."""
        value = version.values.get(self.name)
        if type(value) is self._inside:
            return value
        if value is None and isinstance(version, LoggedRow):
            value = version.other.get(self.name)  # as posted: the plans of that time did not read it
        try:
            read: int | str | None = self._reader.read({self.name: value})[self.name]
        except RequestError:
            return None
        return read

    def values(self, version: LoggedRow | StoredVersion) -> Inside:
        value = self.of(version)
        return {} if value is None else {self.name: value}

    def is_open(self, record: LoggedRow) -> bool:
        """Whether the sequence of a row is that of the row before, as its posts left it out."""
        return not (record.deleted or record.whole or self.name in record.values or self.name in record.other)


def _fill_missing(row: PostedRow, before: LoggedRow | None, entry: int) -> LoggedRow | None:
    """The row with missing columns filled by a scored row, where no snapshot has it."""
    present = _present(row.values)
    if before is None:
        return LoggedRow(POSTED, entry, present, row.other, scored=True)
    missing = {n: v for n, v in present.items() if n not in before.values and n not in before.other}
    if before.deleted or before.whole or before.over or not missing:
        return None
    return msgspec.structs.replace(before, entry=entry, values=before.values | missing)


def _adds_nothing(row: PostedRow, before: LoggedRow) -> bool:
    return all(before.values.get(name) == value for name, value in row.values.items()) and all(
        before.other.get(name) == value for name, value in row.other.items()
    )


def _present(values: Inside) -> Inside:
    return {name: value for name, value in values.items() if value is not None}


def _rank(moment: int | None) -> float | int:
    """Moments in their order; none is before all."""
    return float("-inf") if moment is None else moment

"""The windows and lookups of one group over one entity's events and the row itself, one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cumulant.core.expr import Column
from cumulant.core.plan import DType, FeaturePlan, Lookup, Window
from cumulant.features.definition.dtypes import Kind
from cumulant.features.offline.groups import Measure, MeasureGroup
from cumulant.features.offline.row_identity import NO_IDENTITY, row_identities, row_identity
from cumulant.features.online.entity_history import HISTORY_AGGREGATIONS, Aggregate, EntityHistory
from cumulant.features.online.python_compiler import compile_node
from cumulant.features.online.requests import RequestRows
from cumulant.features.online.scalars import finite
from cumulant.features.online.state import entity_key

Inside = dict[str, Any]
#: flags are stored as numbers, and a maximum of flags is a number
_CONVERSIONS: dict[DType, Callable[[Any], Any]] = {"float": float, "bool": bool, "int": int}


class GroupMeasure(NamedTuple):
    """A window or lookup: how far back it reaches, which value it reads (-1 for none), and how. `latest`: it takes the
    event with the latest event time.
    """

    name: str
    measure: Measure
    reach: int | None
    slot: int
    aggregate: Aggregate | None
    convert: Callable[[Any], Any] | None
    latest: bool


class OwnRow(NamedTuple):
    """A row as an event: when it enters, None where it does not, its values and its identity."""

    enters: int | None
    values: list[Any]
    identity: int


class OwnEvents(NamedTuple):
    """Rows as events, by row: when each enters, `NEVER` where it does not, its values (by slot, then by row) and its
    identity. The latter two mean nothing for a row that does not enter.
    """

    enters: list[int]
    values: list[list[Any]]
    identities: list[int]


#: later than any moment
NEVER = 2**63 - 1
_NO_ROW = OwnRow(None, [], NO_IDENTITY)


class GroupReader:
    """The windows and lookups of one group, over one entity's events and, with `own_rows`, the row itself."""

    def __init__(self, plan: FeaturePlan, group: MeasureGroup, *, own_rows: bool = True) -> None:
        source = plan.sources[group.source]
        self.group = group
        #: features of a row without a key or a moment
        self.missing: Inside = dict.fromkeys(group.measures)
        self._key = source.key
        #: the column of the row's own event time; None where rows do not count in their own windows
        self._event_time = source.event_time if group.counts_itself and own_rows else None
        columns: dict[str, Kind] = {field.name: field.dtype for field in plan.request}
        self._own = [compile_node(node, columns) for node in group.values] if group.counts_itself else []
        dtypes = {spec.name: spec.dtype for spec in plan.features}
        measures = [
            GroupMeasure(
                name,
                of,
                group.reach_us(of),
                group.slots[name],
                _aggregate(of),
                _CONVERSIONS.get(dtypes[name]),
                group.takes_latest_event(of),
            )
            for name, of in group.measures.items()
        ]
        #: one after the other, those that aggregate the same values share them; those without a limit come first
        self.measures = sorted(measures, key=lambda each: (-1 if each.reach is None else each.reach, each.slot))

    def keys(self, rows: RequestRows, moments: Sequence[int | None]) -> list[bytes | None]:
        """The key in the store of each row's entity; None where a column of it, or the moment, is null."""
        by = zip(*[rows.column(column) for column in self.group.by], strict=True)
        return [
            None if at is None or None in values else entity_key(self.group.number, values)
            for values, at in zip(by, moments, strict=True)
        ]

    def own_event(self, row: Inside, at: int, history: EntityHistory | None) -> OwnRow:
        """The row itself as an event, which does not enter where that is after `at` or the history holds it."""
        event = None if self._event_time is None else row[self._event_time]
        if event is None:
            return _NO_ROW
        enters = event + self.group.entry.delay_us
        if enters > at:
            return _NO_ROW
        identity = row_identity([row[column] for column in self._key])
        if history is not None and identity != NO_IDENTITY and history.holds(identity):
            return _NO_ROW
        return OwnRow(enters, [own(row, {}) for own in self._own], identity)

    def own_rows(self, rows: RequestRows, moments: Sequence[int]) -> OwnEvents | None:
        """Many rows as events, as `own_event`, whatever the histories hold; None where no row enters."""
        if self._event_time is None:
            return None
        delay = self.group.entry.delay_us
        enters = [
            NEVER if time is None or time + delay > at else time + delay
            for time, at in zip(rows.column(self._event_time), moments, strict=True)
        ]
        if min(enters, default=NEVER) == NEVER:
            return None
        keys = [rows.column(column) for column in self._key]
        identities = row_identities(keys) if keys else [NO_IDENTITY] * len(enters)
        values = [
            rows.column(node.name) if isinstance(node, Column) else [own(row, {}) for row in rows.all()]
            for node, own in zip(self.group.values, self._own, strict=True)
        ]
        return OwnEvents(enters, values, identities)

    def measure(self, row: Inside, at: int, history: EntityHistory | None, features: Inside) -> int | None:
        """Put the group's features into `features`; the time of the newest stored event used."""
        enters, own_values, identity = self.own_event(row, at, history)
        times, values = ((), ()) if history is None else (history.times, history.values)
        hi = bisect_right(times, at)
        newest: int | None = None
        before: int | None = -1
        lo, joins = 0, False
        for name, measure, reach, slot, aggregate, convert, latest in self.measures:
            if reach != before:
                before = reach
                lo = 0 if reach is None else bisect_right(times, at - reach)
                if hi > lo:
                    newest = times[hi - 1]
                joins = enters is not None and (reach is None or enters > at - reach)
            own = own_values[slot] if joins and slot >= 0 else None
            if values and aggregate is not None:
                value = aggregate(values[slot], lo, hi, own)
            elif latest:
                value = latest_value(measure, Past(history, slot, lo, hi), at)
            else:
                value = value_of(measure, Past(history, slot, lo, hi), enters if joins else None, own, identity)
            features[name] = value if value is None or convert is None else convert(value)
        return newest


class Past(NamedTuple):
    """The stored events [lo, hi) of an entity, and which value of them is read."""

    history: EntityHistory | None
    slot: int
    lo: int
    hi: int


def _aggregate(measure: Measure) -> Aggregate | None:
    """The aggregation over a history; None for a lookup, the newest value and a number of events."""
    return HISTORY_AGGREGATIONS.get(measure.agg) if isinstance(measure, Window) and measure.value is not None else None


def value_of(measure: Measure, past: Past, enters: int | None, own: Any, identity: int) -> Any:
    """A window or lookup that needs no `_aggregate`, or has no history; `enters`: when the row itself, of this
    identity, became known.
    """
    history, slot, lo, hi = past
    if isinstance(measure, Lookup):
        return _newest(past, hi - 1 if hi > lo else -1, enters, own, identity)
    if measure.value is None:
        return hi - lo + (enters is not None)
    if measure.agg == "last":
        at = -1 if history is None else history.values[slot].last(lo, hi)
        return _newest(past, at, None if own is None else enters, own, identity)
    return _alone(measure, own)


def latest_value(measure: Measure, past: Past, moment: int) -> Any:
    """A window or lookup that takes the event with the latest event time: of equal ones the last in the order of entry.

    The row itself is none: it waits for another column.
    """
    history, slot, lo, hi = past
    if history is None:
        return None
    if isinstance(measure, Window):
        at = history.latest_event(lo, hi, history.values[slot])
    else:
        at = history.latest_event(lo, hi)
        limit = measure.within_us
        if at >= 0 and limit is not None and history.event_time(at) < moment - limit:
            return None
    return None if at < 0 else history.values[slot].all(at, at + 1)[0]


def _newest(past: Past, at: int, enters: int | None, own: Any, identity: int) -> Any:
    """The value at `at`, unless the row itself comes after that event."""
    history = past.history
    if at < 0 or history is None:
        return own if enters is not None else None
    if enters is not None:
        time = history.times[at]
        if enters > time or (enters == time and identity >= history.identity(at)):
            return own
    return history.values[past.slot].all(at, at + 1)[0]


def _alone(measure: Window, own: Any) -> Any:
    """A window that holds nothing but the row itself, or nothing at all."""
    if measure.agg in {"count", "distinct"}:
        return int(own is not None)
    if own is None or measure.agg == "std":
        return None
    return finite(own) if isinstance(own, float) else own

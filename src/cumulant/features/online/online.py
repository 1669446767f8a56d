"""Features of raw request rows from stored state: what the server runs. Needs numpy and msgspec, never Polars.

Each row is answered at its own prediction moment, over the events that had become known by then, and over itself where
it is known at the prediction and the stored history does not hold it already (`offline` states the rule).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cumulant.core.errors import EngineUnavailableError, RequestError
from cumulant.core.plan import FeaturePlan, FeatureSpec, Lookup, Window
from cumulant.core.units import from_micros
from cumulant.features.definition.dtypes import Kind
from cumulant.features.offline.groups import Measure, MeasureGroup, fingerprint, groups_of, reach_us
from cumulant.features.online.entity_cache import EntityCache
from cumulant.features.online.entity_history import HISTORY_AGGREGATIONS, Aggregate, EntityHistory
from cumulant.features.online.python_compiler import Evaluate, compile_node
from cumulant.features.online.requests import RequestReader, python_converter
from cumulant.features.online.scalars import finite
from cumulant.features.online.state import NO_IDENTITY, TableState, entity_key, row_identity
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.features.posted.state_update import advance, catch_up
from cumulant.ports.online import OnlineStore

Inside = dict[str, Any]
#: flags are stored as numbers, and a maximum of flags is a number
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"float": float, "bool": bool, "int": int}


class Vectors(msgspec.Struct, frozen=True):
    """Features by name, each a list over the rows; and for each row the age of the newest stored event that it used,
    in seconds before its prediction, None where it used none.

    late: for each row since when the history of its key is kept, where its prediction moment is before that: its
    windows hold what is left. None for other rows.
    """

    columns: dict[str, list[Any]]
    age: list[float | None]
    late: list[int | None] = []


class _RowMeasures(NamedTuple):
    """The windows and lookups of one row, with its age and lateness as in `Vectors`."""

    features: Inside
    age: float | None
    late: int | None


class FeatureRequest(NamedTuple):
    """Rows in their inside form, their prediction moments, and for each row the key of its entity in each group, None
    where it has none.
    """

    rows: list[Inside]
    moments: list[int | None]
    keys: list[list[bytes | None]]


class StoredEntities(NamedTuple):
    """The state of a table and the entities of a request that it has, all as they stood at one moment."""

    state: TableState
    histories: Mapping[bytes, EntityHistory]


class OnlineFeatures:
    """The features of `plan` from the state in `table` of an online store.

    Decoded entities are kept, the longest unused leaving first, up to `cache_bytes` of their stored size. A refilled
    table is noticed at the next call, and so is what any process advanced. Safe to use from several threads.
    """

    def __init__(
        self, plan: FeaturePlan, store: OnlineStore | None, table: str, *, cache_bytes: int = 64 * 2**20
    ) -> None:
        self._plan, self._store, self._table = plan, store, table
        self._reader = RequestReader(plan.request)
        self._groups = [_GroupReader(plan, group) for group in groups_of(plan)]
        self._cache: EntityCache | None = None
        self._writer: StateWriter | None = None
        if self._groups:
            kinds = [reader.group.kinds for reader in self._groups]
            self._cache = EntityCache(store, table, fingerprint(plan), kinds, cache_bytes)
        #: reading the state waits for a network: an event loop calls `request`, `read_entities` and `vectors_of` in
        #: place of `vectors`
        self.awaits = self._cache is not None and store is not None and store.remote
        columns: dict[str, Kind] = {field.name: field.dtype for field in plan.request}
        features: dict[str, Kind] = {spec.name: spec.dtype for spec in plan.features}
        self._expressions: list[tuple[FeatureSpec, Evaluate]] = [
            (spec, compile_node(spec.expr, columns, features)) for spec in plan.features if spec.expr is not None
        ]
        names = set(plan.names)
        self._outputs = [(spec.name, python_converter(spec.dtype)) for spec in plan.features if spec.name in names]

    def state(self) -> TableState | None:
        """What the stored state was made from; None for a plan without windows and lookups.

        Raises:
            EngineUnavailableError: there is no state yet.
            IntegrityError: it was made for other windows and lookups than this plan's.
        """
        return None if self._cache is None else self._cache.fetch([])[0]

    def vectors(self, rows: Sequence[Mapping[str, object]]) -> Vectors:
        """Features of raw request rows, each at its own prediction moment.

        Raises:
            RequestError: a value does not fit its field, or a moment is before the whole table begins.
            EngineUnavailableError: there is no state yet.
            IntegrityError: the state was made for other windows and lookups than this plan's.
        """
        request = self.request(rows)
        if self._cache is None:
            return self._vectors(request, [_RowMeasures({}, None, None) for _ in request.rows])
        return self._vectors(request, self._measured(request, *self._cache.fetch(_entities(request))))

    def request(self, rows: Sequence[Mapping[str, object]]) -> FeatureRequest:
        """Raw request rows, and what must be read for them.

        Raises:
            RequestError: a value does not fit its field.
        """
        inside = [self._reader.read(row) for row in rows]
        if self._cache is None:
            return FeatureRequest(inside, [], [])
        predict_at = self._plan.predict_at
        assert predict_at is not None, "a plan with windows has a prediction time"
        times = [row[predict_at.column] for row in inside]
        moments = [None if time is None else time + predict_at.offset_us for time in times]
        keys = [
            [group.key(row) if at is not None else None for group in self._groups]
            for row, at in zip(inside, moments, strict=True)
        ]
        return FeatureRequest(inside, moments, keys)

    async def read_entities(self, request: FeatureRequest) -> StoredEntities:
        """The entities of a request, read in one round trip.

        Raises:
            EngineUnavailableError, IntegrityError: as `vectors`; also where the store does not answer.
        """
        assert self._cache is not None, "a plan that awaits has state"
        return StoredEntities(*await self._cache.read(_entities(request)))

    def vectors_of(self, request: FeatureRequest, entities: StoredEntities) -> Vectors:
        """As `vectors`, from entities that were read.

        Raises:
            RequestError: a moment is before the whole table begins.
        """
        return self._vectors(request, self._measured(request, *entities))

    def _vectors(self, request: FeatureRequest, measured: Sequence[_RowMeasures]) -> Vectors:
        columns: dict[str, list[Any]] = {name: [] for name, _ in self._outputs}
        for row, (features, _, _) in zip(request.rows, measured, strict=True):
            for spec, evaluate in self._expressions:
                features[spec.name] = evaluate(row, features)
            for name, convert in self._outputs:
                value = features[name]
                columns[name].append(value if value is None or convert is None else convert(value))
        return Vectors(
            columns, [row_measures.age for row_measures in measured], [row_measures.late for row_measures in measured]
        )

    def writer(self) -> StateWriter | None:
        """The writer of the table; None for a plan without windows and lookups. `Advancer` takes several of them.

        Raises:
            EngineUnavailableError: there is no store.
        """
        if self._cache is None:
            return None
        if self._store is None:
            raise EngineUnavailableError("these features need an online store", hint="give the server an online URL")
        if self._writer is None:
            self._writer = StateWriter(self._plan, self._store, self._table)
        return self._writer

    def advance(self, source: str, rows: Sequence[Mapping[str, object]]) -> AdvanceResult:
        """Let rows of a source, whole or in part, into the windows and lookups; durable when this returns.

        Raises:
            RequestError: a value does not fit its field.
            EngineUnavailableError, IntegrityError: as for `vectors`.
        """
        writer = self.writer()
        return AdvanceResult(unused=len(rows)) if writer is None else advance([writer], source, rows)

    def catch_up(self) -> int:
        """Read what was posted to the plan's sources and is not in the table yet; returns the number of rows."""
        writer = self.writer()
        return 0 if writer is None else catch_up(writer)

    def _measured(
        self, request: FeatureRequest, state: TableState, histories: Mapping[bytes, EntityHistory]
    ) -> list[_RowMeasures]:
        results = []
        for row, at, row_keys in zip(*request, strict=True):
            if at is not None and state.since_us is not None and at < state.since_us:
                raise self._too_early(at, state.since_us)
            features: Inside = {}
            newest: int | None = None
            late: int | None = None
            for group, key in zip(self._groups, row_keys, strict=True):
                if key is None or at is None:
                    features.update(group.missing)
                    continue
                history = histories.get(key)
                if history is not None and history.since is not None and at < history.since:
                    late = history.since if late is None else max(late, history.since)
                used = group.measure(row, at, history, features)
                newest = used if newest is None or (used is not None and used > newest) else newest
            age = None if newest is None or at is None else (at - newest) / 1e6
            results.append(_RowMeasures(features, age, late))
        return results

    def _too_early(self, at: int, since: int) -> RequestError:
        return RequestError(
            f"the prediction moment {from_micros(at).isoformat()} is before the stored history, "
            f"which answers from {from_micros(since).isoformat()} on",
            subject=self._plan.predict_at.column if self._plan.predict_at else None,
            hint="fill the online state with an earlier `since`",
        )


def _entities(request: FeatureRequest) -> set[bytes]:
    """The keys of all entities of a request."""
    return {key for row_keys in request.keys for key in row_keys if key is not None}


class _GroupReader:
    """The windows and lookups of one group, over one entity's events and the row itself."""

    def __init__(self, plan: FeaturePlan, group: MeasureGroup) -> None:
        source = plan.sources[group.source]
        self.group = group
        #: features of a row without a key or a moment
        self.missing: Inside = dict.fromkeys(group.measures)
        self._key = source.key
        #: where the row's own event time stands; None where rows do not count in their own windows
        self._event_time = source.event_time if group.counts_itself else None
        columns: dict[str, Kind] = {field.name: field.dtype for field in plan.request}
        self._own = [compile_node(node, columns) for node in group.values] if group.counts_itself else []
        dtypes = {spec.name: spec.dtype for spec in plan.features}
        measures = [
            (name, measure, reach_us(measure), group.slots[name], _aggregate(measure), _CONVERSIONS.get(dtypes[name]))
            for name, measure in group.measures.items()
        ]
        # One after the other, those that aggregate the same values share them.
        self._measures = sorted(measures, key=lambda each: (-1 if each[2] is None else each[2], each[3]))

    def key(self, row: Inside) -> bytes | None:
        """The entity's key in the store; None where a column of it is null."""
        values = [row[column] for column in self.group.by]
        return None if None in values else entity_key(self.group.number, values)

    def _own_entry(self, row: Inside, event: int, at: int, history: EntityHistory | None) -> int | None:
        """When the row itself enters, by its event time; None where that is after `at` or the history holds it."""
        enters = event + self.group.entry.delay_us
        if enters > at:
            return None
        identity = row_identity([row[column] for column in self._key])
        if history is not None and identity != NO_IDENTITY and identity in history.identities:
            return None
        return enters

    def measure(self, row: Inside, at: int, history: EntityHistory | None, features: Inside) -> int | None:
        """Put the group's features into `features`; the time of the newest stored event used."""
        event = None if self._event_time is None else row[self._event_time]
        enters = None if event is None else self._own_entry(row, event, at, history)
        own_values = [] if enters is None else [own(row, {}) for own in self._own]
        hi = 0 if history is None else bisect_right(history.times, at)
        newest: int | None = None
        before: int | None = -1
        lo, joins = 0, False
        for name, measure, reach, slot, aggregate, convert in self._measures:
            if reach != before:
                before = reach
                lo = 0 if reach is None or history is None else bisect_right(history.times, at - reach)
                if history is not None and hi > lo:
                    newest = history.times[hi - 1]
                joins = enters is not None and (reach is None or enters > at - reach)
            own = own_values[slot] if joins and slot >= 0 else None
            if history is not None and aggregate is not None:
                value = aggregate(history.values[slot], lo, hi, own)
            else:
                value = _value(measure, _Past(history, slot, lo, hi), enters if joins else None, own)
            features[name] = value if value is None or convert is None else convert(value)
        return newest


class _Past(NamedTuple):
    """The stored events [lo, hi) of an entity, and which value of them is read."""

    history: EntityHistory | None
    slot: int
    lo: int
    hi: int


def _aggregate(measure: Measure) -> Aggregate | None:
    """The aggregation over a history; None for a lookup, the newest value and a number of events."""
    return HISTORY_AGGREGATIONS.get(measure.agg) if isinstance(measure, Window) and measure.value is not None else None


def _value(measure: Measure, past: _Past, enters: int | None, own: Any) -> Any:
    """A window or lookup that needs no `_aggregate`, or has no history; `enters`: when the row itself became known."""
    history, slot, lo, hi = past
    if isinstance(measure, Lookup):
        return _newest(past, hi - 1 if hi > lo else -1, enters, own)
    if measure.value is None:
        return hi - lo + (enters is not None)
    if measure.agg == "last":
        at = -1 if history is None else history.values[slot].last(lo, hi)
        return _newest(past, at, None if own is None else enters, own)
    return _alone(measure, own)


def _newest(past: _Past, at: int, enters: int | None, own: Any) -> Any:
    """The value at `at`, unless the row itself became known at that time or later."""
    history = past.history
    if enters is not None and (at < 0 or history is None or enters >= history.times[at]):
        return own
    return None if at < 0 or history is None else history.values[past.slot].all(at, at + 1)[0]


def _alone(measure: Window, own: Any) -> Any:
    """A window that holds nothing but the row itself, or nothing at all."""
    if measure.agg in {"count", "distinct"}:
        return int(own is not None)
    if own is None or measure.agg == "std":
        return None
    return finite(own) if isinstance(own, float) else own

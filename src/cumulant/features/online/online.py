"""Features of raw request rows from stored state: what the server runs. Needs numpy and msgspec, never Polars.

Each row is answered at its own prediction moment, over the events that had become known by then, and over itself where
it is known at the prediction and the stored history does not hold it already (`offline` states the rule).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cumulant.core import expr
from cumulant.core.errors import EngineUnavailableError, RequestError
from cumulant.core.plan import FeaturePlan, FeatureSpec
from cumulant.core.units import from_micros
from cumulant.features.definition.dtypes import Kind
from cumulant.features.offline.groups import fingerprint, groups_of
from cumulant.features.online.entity_cache import EntityCache
from cumulant.features.online.entity_history import EntityHistory
from cumulant.features.online.group_reader import GroupReader, Inside
from cumulant.features.online.many_rows import ManyRows, batch_measures, rows_to_batch
from cumulant.features.online.python_compiler import Evaluate, compile_node
from cumulant.features.online.requests import RequestReader, RequestRows, python_converter
from cumulant.features.online.state import TableState
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.online.tiles import TILES, TileRule
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.features.posted.state_update import advance, catch_up
from cumulant.ports.online import OnlineStore


class Vectors(msgspec.Struct, frozen=True):
    """Features by name, each a list over the rows; and for each row the age of the newest stored event that it used,
    in seconds before its prediction, None where it used none.

    late: for each row since when the history of its key is kept, where its prediction moment is before that: its
    windows hold what is left. None for other rows. incomplete: the features of such rows that may lack events, by the
    place of the row.
    """

    columns: dict[str, list[Any]]
    age: list[float | None]
    late: list[int | None] = []
    incomplete: Mapping[int, tuple[str, ...]] = {}


class _RowMeasures(NamedTuple):
    """The windows and lookups of one row, with its age and lateness as in `Vectors`."""

    features: Inside
    age: float | None
    late: int | None


class FeatureRequest(NamedTuple):
    """Rows in their inside form, their prediction moments, and for each group the key of each row's entity, None where
    it has none.
    """

    rows: RequestRows
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
    Requests of `together_from` rows and more are computed column by column; None: where that is faster. Without
    `own_rows` a row is no event of its own windows: the features are those of the stored entities at the moment.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        store: OnlineStore | None,
        table: str,
        *,
        cache_bytes: int = 64 * 2**20,
        together_from: int | None = None,
        tiles: TileRule = TILES,
        own_rows: bool = True,
    ) -> None:
        self._plan, self._store, self._table, self._tiles = plan, store, table, tiles
        self._reader = RequestReader(plan.request)
        self._groups = [GroupReader(plan, group, own_rows=own_rows) for group in groups_of(plan)]
        self._cache: EntityCache | None = None
        self._writer: StateWriter | None = None
        if self._groups:
            kinds = [reader.group.kinds for reader in self._groups]
            self._cache = EntityCache(store, table, fingerprint(plan), kinds, cache_bytes)
        self._batched = [batch_measures(group) for group in self._groups]
        self._together_from = rows_to_batch(self._batched) if together_from is None else together_from
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
            return self._vectors(request, [_RowMeasures({}, None, None) for _ in rows])
        return self.vectors_of(request, StoredEntities(*self._cache.fetch(_entities(request))))

    def request(self, rows: Sequence[Mapping[str, object]]) -> FeatureRequest:
        """Raw request rows, and what must be read for them.

        Raises:
            RequestError: a value does not fit its field.
        """
        inside = self._reader.read_all(rows)
        if self._cache is None:
            return FeatureRequest(inside, [], [])
        predict_at = self._plan.predict_at
        assert predict_at is not None, "a plan with windows has a prediction time"
        times = inside.column(predict_at.column)
        moments = [None if time is None else time + predict_at.offset_us for time in times]
        return FeatureRequest(inside, moments, [group.keys(inside, moments) for group in self._groups])

    def stored(self, request: FeatureRequest, *, wait: bool = True) -> StoredEntities:
        """The entities of a request.

        Raises:
            EngineUnavailableError, IntegrityError: as `vectors`.
            CacheBusyError: another thread reads entities now, and `wait` is false.
        """
        assert self._cache is not None, "a plan with windows and lookups has state"
        return StoredEntities(*self._cache.fetch(_entities(request), wait=wait))

    async def read_entities(self, request: FeatureRequest) -> StoredEntities:
        """The entities of a request, read in one round trip, and a second one where tiles are not cached.

        Raises:
            EngineUnavailableError, IntegrityError: as `vectors`; also where the store does not answer.
        """
        assert self._cache is not None, "a plan that awaits has state"
        return StoredEntities(*await self._cache.read(_entities(request)))

    async def reach(self) -> None:
        """Return once the store answers, where reading waits for a network.

        Raises:
            EngineUnavailableError: it does not answer.
        """
        if self.awaits and self._store is not None:
            await self._store.read(self._table, [])

    def vectors_of(self, request: FeatureRequest, entities: StoredEntities) -> Vectors:
        """As `vectors`, from entities that were read.

        Raises:
            RequestError: a moment is before the whole table begins.
        """
        since = entities.state.since_us
        if since is not None:
            for at in request.moments:
                if at is not None and at < since:
                    raise self._too_early(at, since)
        if len(request.moments) < self._together_from:
            vectors = self._vectors(request, self._measured(request, entities.histories))
        else:
            vectors = self._many_vectors(request, entities.histories)
        if vectors.late.count(None) == len(vectors.late):
            return vectors
        late = [number for number, since in enumerate(vectors.late) if since is not None]
        incomplete = {number: self._incomplete(request, entities, number) for number in late}
        return msgspec.structs.replace(vectors, incomplete=incomplete)

    def _incomplete(self, request: FeatureRequest, entities: StoredEntities, number: int) -> tuple[str, ...]:
        """The features that use events of the row's entities as they stood before what is stored of them begins."""
        at, lacking = request.moments[number], set[str]()
        for reader, keys in zip(self._groups, request.keys, strict=True):
            key = keys[number]
            history = None if key is None else entities.histories.get(key)
            if at is not None and history is not None and history.since is not None and at < history.since:
                lacking |= reader.group.measures.keys()
        for spec in self._plan.features:
            if spec.expr is not None and not lacking.isdisjoint(expr.features(spec.expr)):
                lacking.add(spec.name)
        return tuple(name for name in self._plan.names if name in lacking)

    def _vectors(self, request: FeatureRequest, measured: Sequence[_RowMeasures]) -> Vectors:
        columns: dict[str, list[Any]] = {name: [] for name, _ in self._outputs}
        for row, (features, _, _) in zip(request.rows.all(), measured, strict=True):
            for spec, evaluate in self._expressions:
                features[spec.name] = evaluate(row, features)
            for name, convert in self._outputs:
                value = features[name]
                columns[name].append(value if value is None or convert is None else convert(value))
        return Vectors(
            columns, [row_measures.age for row_measures in measured], [row_measures.late for row_measures in measured]
        )

    def _many_vectors(self, request: FeatureRequest, histories: Mapping[bytes, EntityHistory]) -> Vectors:
        """As `_vectors`, column by column."""
        size = len(request.moments)
        features: dict[str, list[Any]] = {}
        newest: list[int | None] = [None] * size
        late: list[int | None] = [None] * size
        for group, measures, keys in zip(self._groups, self._batched, request.keys, strict=True):
            there = range(size) if None not in keys else [at for at, key in enumerate(keys) if key is not None]
            whole = len(there) == size
            entities = [histories.get(key) for key in keys if key is not None]
            moments = [moment for at in there if (moment := request.moments[at]) is not None]
            rows = ManyRows(group, measures, request.rows if whole else request.rows.take(there), moments, entities)
            for name, values in rows.columns().items():
                features[name] = values if whole else _scattered(values, there, size)
            used = rows.newest() if whole else _scattered(rows.newest(), there, size)
            newest = used if newest.count(None) == size else list(map(_latest, newest, used))
            for at, moment, history in zip(there, moments, entities, strict=True):
                if history is None or history.events.since_us is None:
                    continue
                if (since := history.since) is not None and moment < since:
                    late[at] = _latest(late[at], since)
        if self._expressions:
            self._evaluate(request.rows.all(), features)
        columns = {
            name: features[name]
            if convert is None
            else [None if each is None else convert(each) for each in features[name]]
            for name, convert in self._outputs
        }
        ages = [
            None if used is None or at is None else (at - used) / 1e6
            for at, used in zip(request.moments, newest, strict=True)
        ]
        return Vectors(columns, ages, late)

    def _evaluate(self, rows: Sequence[Inside], features: dict[str, list[Any]]) -> None:
        """Add the features that are expressions."""
        names = list(features)
        results: list[list[Any]] = [[] for _ in self._expressions]
        for row, values in zip(rows, zip(*features.values(), strict=True), strict=True):
            of_row = dict(zip(names, values, strict=True))
            for (spec, evaluate), column in zip(self._expressions, results, strict=True):
                of_row[spec.name] = value = evaluate(row, of_row)
                column.append(value)
        for (spec, _), column in zip(self._expressions, results, strict=True):
            features[spec.name] = column

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
            self._writer = StateWriter(self._plan, self._store, self._table, tiles=self._tiles)
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

    def _measured(self, request: FeatureRequest, histories: Mapping[bytes, EntityHistory]) -> list[_RowMeasures]:
        results = []
        for row, at, *row_keys in zip(request.rows.all(), request.moments, *request.keys, strict=True):
            features: Inside = {}
            newest: int | None = None
            late: int | None = None
            for group, key in zip(self._groups, row_keys, strict=True):
                if key is None or at is None:
                    features.update(group.missing)
                    continue
                history = histories.get(key)
                if history is not None and history.since is not None and at < history.since:
                    late = _latest(late, history.since)
                newest = _latest(newest, group.measure(row, at, history, features))
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
    return {key for of_group in request.keys for key in of_group if key is not None}


def _latest(moment: int | None, other: int | None) -> int | None:
    if moment is None or other is None:
        return other if moment is None else moment
    return max(moment, other)


def _scattered(values: Sequence[Any], places: Sequence[int], size: int) -> list[Any]:
    """Values at their places among nulls."""
    column: list[Any] = [None] * size
    for at, value in zip(places, values, strict=True):
        column[at] = value
    return column

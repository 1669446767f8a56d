"""Features of entities, read directly from stored state at a moment: which can be read by a key, and how old they are.

Needs no Polars.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.core import expr
from cumulant.core.errors import RefusedError, RequestError, did_you_mean
from cumulant.core.plan import FeaturePlan, FeatureSpec
from cumulant.core.units import from_micros, micros, show_duration
from cumulant.features.offline.groups import MeasureGroup, groups_of
from cumulant.features.online.requests import TEXT_TYPES, as_written

if TYPE_CHECKING:
    from cumulant.features.online.online import FeatureRequest, OnlineFeatures, StoredEntities

#: of a request; one of a server takes as many rows
MOST_KEYS = 1_000


class EntityFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """Features of one entity. `staleness`: seconds from the newest stored event that they use to the moment, null where
    they use none; `expired`: features that are null because of `ttl`; `since`: where the moment is before what is
    stored of the key, when that begins: events that the moment would see are dropped, or rows were corrected since. The
    features that use these are null then, and in `incomplete`. `at`: the moment that the key itself names by the time
    column of predictions; null where it names none.
    """

    features: dict[str, Any]
    staleness: float | None
    expired: tuple[str, ...] = ()
    since: datetime | None = None
    incomplete: tuple[str, ...] = ()
    at: datetime | None = None


class TimeToLive(NamedTuple):
    """How old the newest event of a source may be, and whether a read is refused where it is older."""

    longest: timedelta
    refuse: bool


class ReadPlan:
    """What can be read of a plan by these fields of a request: `features`, and which fields each of the others lacks
    (`missing`). With `own_rows` a row counts in its own windows, which then need its values too.

    Raises:
        RequestError: no field has such a name, or no feature can be read by these alone.
    """

    def __init__(self, plan: FeaturePlan, given: Collection[str], *, own_rows: bool = False) -> None:
        self.plan = plan
        self._fields = {field.name: field for field in plan.request}
        for name in given:
            if name not in self._fields:
                hint = did_you_mean(name, self._fields) or f"fields of a request: {', '.join(self._fields)}"
                raise RequestError(f'no feature reads a field "{name}"', subject=name, hint=hint)
        there = set(given) | ({plan.predict_at.column} if plan.predict_at is not None else set())
        groups = {name: group for group in groups_of(plan) for name in group.measures}
        needs: dict[str, frozenset[str]] = {}
        #: by feature, the sources whose stored events it uses
        self.sources: dict[str, frozenset[str]] = {}
        for spec in plan.features:
            if spec.expr is None:
                group = groups[spec.name]
                needs[spec.name] = _needs(group, spec, own_rows=own_rows)
                self.sources[spec.name] = frozenset([group.source])
            else:
                parts = expr.features(spec.expr)
                needs[spec.name] = expr.columns(spec.expr).union(*(needs[part] for part in parts))
                self.sources[spec.name] = frozenset[str]().union(*(self.sources[part] for part in parts))
        self._sources_read = {group.source for group in groups_of(plan)}
        #: of the fields given, those of which a command line gives numbers and truth values as texts
        self._as_text = [(name, self._fields[name]) for name in given if self._fields[name].dtype not in TEXT_TYPES]
        self.missing = {name: tuple(sorted(needs[name] - there)) for name in plan.names if needs[name] - there}
        self.features = tuple(name for name in plan.names if name not in self.missing)
        #: the time column of predictions, where the keys name their moments by it
        self.dated_by = plan.predict_at.column if plan.predict_at and plan.predict_at.column in given else None
        if not self.features:
            keys = " or ".join(dict.fromkeys(", ".join(group.by) for group in groups_of(plan)))
            raise RequestError(
                f"no feature can be read by {', '.join(given) or 'nothing'} alone",
                subject=", ".join(given) or None,
                hint=f"windows and lookups are by {keys}" if keys else "the features are all of the row itself",
            )

    def rows(self, keys: Sequence[Mapping[str, object]], at: datetime) -> list[dict[str, object]]:
        """Request rows, of the moment where they name none. Texts, as of a command line, are read by their fields."""
        first: dict[str, object] = {}
        predict_at = self.plan.predict_at
        if predict_at is not None:
            try:
                first[predict_at.column] = at - timedelta(microseconds=predict_at.offset_us)
            except OverflowError:
                raise RequestError(f"no time is as far as {at.isoformat()}", subject="at") from None
        rows = [{**first, **key} for key in keys]
        for name, field in self._as_text:
            for row in rows:
                row[name] = as_written(field, row[name])
        return rows

    def limited(self, lives: Mapping[str, TimeToLive]) -> bool:
        """Whether entities of one of the sources that are read may expire."""
        return not self._sources_read.isdisjoint(lives)


def _needs(group: MeasureGroup, spec: FeatureSpec, *, own_rows: bool) -> frozenset[str]:
    """The fields of a request that a window or lookup reads."""
    value = spec.window.value if spec.window is not None else None
    own = expr.columns(value) if own_rows and group.counts_itself and value is not None else frozenset[str]()
    return frozenset(group.by) | own


def read_entities(
    reading: ReadPlan,
    online: OnlineFeatures,
    rows: Sequence[Mapping[str, object]],
    lives: Mapping[str, TimeToLive],
    at: datetime | None = None,
    *,
    wait: bool = True,
) -> tuple[EntityFeatures, ...]:
    """The features of rows of `ReadPlan.rows`, each at its moment. `lives`: by source; `at`: the moment that the caller
    asked for, if any.

    Raises:
        CacheBusyError: another thread reads entities of the table now, and `wait` is false.
        RequestError: a value does not fit its field, the moment is before the stored history, or a key names another
            one than `at`.
        RefusedError: an entity's newest event is older than `ttl`, and that refuses.
        EngineUnavailableError, IntegrityError: as `OnlineFeatures.vectors`.
    """
    request = online.request(rows)
    dated = [] if reading.dated_by is None else request.moments
    if at is not None:
        _check_moments(reading, dated, at)
    entities = online.stored(request, wait=wait)
    vectors = online.vectors_of(request, entities)
    names, columns = reading.features, [vectors.columns[name] for name in reading.features]
    by_row = [
        EntityFeatures(features=dict(zip(names, values, strict=True)), staleness=age)
        for values, age in zip(zip(*columns, strict=True), vectors.age, strict=True)
    ]
    if reading.limited(lives):
        for number, row in enumerate(by_row):
            sources = _expired(reading, request, entities, number, lives)
            expired = tuple(name for name in names if reading.sources[name] & sources)
            by_row[number] = _without(row, expired, expired=expired)
    for number, late in enumerate(vectors.late):
        if late is not None:
            incomplete = tuple(name for name in vectors.incomplete[number] if name in by_row[number].features)
            by_row[number] = _without(by_row[number], incomplete, since=from_micros(late), incomplete=incomplete)
    for number, moment in enumerate(dated):
        if moment is not None:
            by_row[number] = msgspec.structs.replace(by_row[number], at=from_micros(moment))
    return tuple(by_row)


def _check_moments(reading: ReadPlan, dated: Sequence[int | None], at: datetime) -> None:
    """Raises RequestError: a key names another moment than `at`, or an empty one."""
    for number, moment in enumerate(dated):
        if moment is None or from_micros(moment) != at:
            own = "no moment" if moment is None else f"the moment {from_micros(moment).isoformat()}"
            raise RequestError(
                f"key {number + 1} names {own} by {reading.dated_by}, and the read is of {at.isoformat()}",
                subject=reading.dated_by,
                hint=f"leave out the moment of the read (`--as-of`, `at`), or `{reading.dated_by}` in the keys",
            )


def _without(row: EntityFeatures, names: Sequence[str], **changes: object) -> EntityFeatures:
    """The row with nulls in place of some features."""
    return msgspec.structs.replace(row, features=row.features | dict.fromkeys(names), **changes)


def _expired(
    reading: ReadPlan,
    request: FeatureRequest,
    entities: StoredEntities,
    number: int,
    lives: Mapping[str, TimeToLive],
) -> set[str]:
    """The sources whose newest event of the entity, at the row's moment, is older than it may be."""
    sources, at = set[str](), request.moments[number]
    for group, keys in zip(groups_of(reading.plan), request.keys, strict=True):
        life, key = lives.get(group.source), keys[number]
        history = None if life is None or key is None else entities.histories.get(key)
        if life is None or at is None or history is None or not (before := bisect_right(history.times, at)):
            continue
        age = at - history.times[before - 1]
        if age <= micros(life.longest):
            continue
        if life.refuse:
            raise _too_old(group, number, timedelta(microseconds=age), life.longest)
        sources.add(group.source)
    return sources


def _too_old(group: MeasureGroup, number: int, age: timedelta, longest: timedelta) -> RefusedError:
    return RefusedError(
        f"the newest stored event of {group.source} of key {number + 1} is {show_duration(_seconds(age))} old; its ttl "
        f"is {show_duration(longest)}",
        subject=group.source,
        hint="`on_expired: missing` under the source answers with nulls instead",
    )


def _seconds(span: timedelta) -> timedelta:
    return timedelta(seconds=round(span.total_seconds()))

"""A slow, obviously right engine: for each row, look at every row of the source.

It shares with the engines only the definitions (plan and expression tree); values, times and windows are done again
here, in plain Python over lists of dicts whose times are datetimes. Sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import Any

from cumulant.core.expr import columns
from cumulant.core.plan import FeaturePlan, Lookup, Source, Window
from cumulant.core.units import EPOCH, micros
from cumulant.features.definition.dtypes import Kind
from cumulant.features.offline.row_identity import row_identity
from cumulant.features.online.python_compiler import compile_node

Row = dict[str, Any]
#: a row of a source with its known time, and whether it is the row to predict
_Known = tuple[datetime, bool, Row]


def features(
    plan: FeaturePlan,
    sources: Mapping[str, Sequence[Row]],
    rows: Sequence[Row] | None = None,
    *,
    as_of: datetime | None = None,
) -> list[Row]:
    """Windows and lookups of `plan` for each row of the entity source, or of `rows` beside what it held `as_of`.

    Rows with versions have the moments from which and until which each is in force in `__from` and `__until`, in
    microseconds. A sum, mean or deviation is a fraction: compare with `same`.
    """
    queries = sources[plan.entity] if rows is None else rows
    until = as_of or datetime.max.replace(tzinfo=UTC)
    return [of_row(plan, sources, row, None if rows is None else until) for row in queries]


def of_row(plan: FeaturePlan, sources: Mapping[str, Sequence[Row]], row: Row, apart: datetime | None) -> Row:
    """Of a row given apart from what was known by a moment, or of one that the history has (None)."""
    assert plan.predict_at is not None, "windows and lookups have a moment of prediction"
    at = row[plan.predict_at.column]
    moment = None if at is None else at + timedelta(microseconds=plan.predict_at.offset_us)
    values: Row = {}
    for spec in plan.features:
        measure = spec.window or spec.lookup
        if measure is None:
            continue
        key = [row[name] for name in measure.by]
        if moment is None or None in key:
            values[spec.name] = None
            continue
        past = [
            other
            for other in sources[measure.source]
            if all(other[name] == value for name, value in zip(measure.by, key, strict=True))
            and in_force(other, moment)
        ]
        itself = apart is not None and measure.source == plan.entity and _brings(plan, measure)
        if itself and not _held(plan, measure, row, [p for p in past if _known(plan, measure, p, apart)]):
            past = [*past, row]
        entries = [(_enters(plan, measure, other), itself and other is row, other) for other in past]
        by_event, name = measure.order == "event_time", plan.sources[measure.source].event_time or ""
        equal = sorted(
            ((when, own, other) for when, own, other in entries if when is not None and when <= moment),
            key=partial(_order, plan.sources[measure.source], by_event=by_event),
        )
        if isinstance(measure, Lookup):
            begins = [other[name] if by_event else when for when, _, other in equal]
            values[spec.name] = _lookup(measure, equal, begins, moment)
        else:
            values[spec.name] = _window(plan, measure, equal, moment)
    return values


def _order(source: Source, known: _Known, *, by_event: bool) -> tuple[Any, ...]:
    """Known time, event time, row identity; of rows without a key their values, and the row to predict is the last.

    `by_event`: event time, known time, row identity.
    """
    when, own, row = known
    names = () if source.key else sorted(field.name for field in source.fields)
    content = () if own else [(row[name] is not None, 0 if row[name] is None else row[name]) for name in names]
    event = row[source.event_time or ""]
    times = (event, when) if by_event else (when, event)
    return *times, row_identity([row[name] for name in source.key]), own, content


def in_force(row: Row, moment: datetime) -> bool:
    """Whether a version of a row counts at a moment; rows without versions always do."""
    begin, end, at = row.get("__from"), row.get("__until"), micros(moment - EPOCH)
    return (begin is None or begin <= at) and (end is None or at < end)


def _held(plan: FeaturePlan, measure: Window | Lookup, row: Row, past: Sequence[Row]) -> bool:
    names = [*plan.sources[plan.entity].key, *measure.by]
    mine = [row.get(name) for name in names]
    return bool(plan.sources[plan.entity].key) and None not in mine and any([p[n] for n in names] == mine for p in past)


def _known(plan: FeaturePlan, measure: Window | Lookup, row: Row, as_of: datetime | None) -> bool:
    """Whether the history of a moment has the row and its place, though values of it may become known later."""
    event: datetime = row[plan.sources[measure.source].event_time or ""]
    return _enters(plan, measure, row) is not None and as_of is not None and event <= as_of


def _columns(measure: Window | Lookup) -> set[str]:
    if isinstance(measure, Lookup):
        return {measure.column, *measure.by}
    return {*measure.by, *(columns(measure.value) if measure.value is not None else ())}


def _brings(plan: FeaturePlan, measure: Window | Lookup) -> bool:
    """A row given apart has no later columns: what waits for one cannot be known from it."""
    source = plan.sources[measure.source]
    return not any(source.known[c].column for c in _columns(measure) if c in source.known)


def _enters(plan: FeaturePlan, measure: Window | Lookup, row: Row) -> datetime | None:
    """The known time of a row; None where it never has one."""
    source = plan.sources[measure.source]
    event: datetime | None = row[source.event_time or ""]
    if event is None:
        return None
    enters, read = event, _columns(measure)
    for name, known in source.known.items():
        if name not in read:
            continue
        start: datetime | None = event if known.column is None else row[known.column]
        if start is None:
            return None
        enters = max(enters, start + timedelta(microseconds=known.delay_us))
    return enters


def _lookup(measure: Lookup, equal: Sequence[_Known], begins: Sequence[datetime], moment: datetime) -> Any:
    """`begins`: the moments from which the age of each row counts."""
    if not equal:
        return None
    _, _, newest = equal[-1]
    too_old = measure.within_us is not None and moment - begins[-1] > timedelta(microseconds=measure.within_us)
    return None if too_old else newest[measure.column]


def inside(row: Row) -> Row:
    """The row with its times in microseconds since 1970 UTC, as compilers hold them."""
    return {name: micros(value - EPOCH) if isinstance(value, datetime) else value for name, value in row.items()}


def _window(plan: FeaturePlan, window: Window, equal: Sequence[_Known], moment: datetime) -> Any:
    start = moment - timedelta(microseconds=window.span_us)
    rows = [row for when, _, row in equal if when > start]
    if window.value is None:
        return len(rows)
    kinds: dict[str, Kind] = {field.name: field.dtype for field in plan.sources[window.source].fields}
    value = compile_node(window.value, kinds)
    values = [v for v in (value(inside(row), {}) for row in rows) if v is not None]
    return aggregate(window.agg, values)


def aggregate(agg: str, values: Sequence[Any]) -> Any:
    """`agg` of values that are not null, in their order."""
    if agg == "count":
        return len(values)
    if agg == "distinct":
        return len(set(values))
    if not values or (agg == "std" and len(values) < 2):
        return None
    if agg == "last":
        return values[-1]
    if agg in {"min", "max"}:
        extreme = min(values) if agg == "min" else max(values)
        return int(extreme) if isinstance(extreme, bool) else extreme
    return _exact(agg, values)


def _exact(agg: str, values: Sequence[Any]) -> Any:
    """A sum, mean or deviation of at least one value."""
    if agg == "sum" and all(isinstance(v, int) for v in values):
        return sum(values) if -(2**63) <= sum(values) < 2**63 else None
    # Deviations are of float64 values.
    exact = [Fraction(float(v) if agg == "std" else v) for v in values]
    total = sum(exact, Fraction(0))
    if agg == "sum":
        return total
    mean = total / len(exact)
    return mean if agg == "mean" else _root(sum(((v - mean) ** 2 for v in exact), Fraction(0)) / (len(exact) - 1))


def _root(square: Fraction) -> Fraction | float:
    if square == 0:
        return 0.0
    shift = (square.denominator.bit_length() - square.numerator.bit_length()) // 2 * 2 + 128
    scaled = square * Fraction(2) ** shift
    return Fraction(math.isqrt(int(scaled))) / Fraction(2) ** (shift // 2)


def same(ours: Any, right: Any, rel: float = 1e-9) -> bool:
    """Equal, numbers within `rel` or the smallest normal float; a number too large for a float must be null."""
    if isinstance(ours, datetime):
        ours = micros(ours - EPOCH)
    if isinstance(right, datetime):
        right = micros(right - EPOCH)
    if isinstance(right, Fraction):
        if abs(right) >= Fraction(2) ** 1024:
            return ours is None
        if ours is None:
            return abs(right) > Fraction(2) ** 1024 * (1 - Fraction(1, 10**9))
        return abs(Fraction(ours) - right) <= max(abs(right) * Fraction(rel), Fraction(2) ** -1022)
    if isinstance(ours, float) and isinstance(right, float):
        return ours == right or abs(ours - right) <= max(rel * abs(right), 2.0**-1022)
    return type(ours) is type(right) and ours == right

"""A slow, obviously right engine: for each row, look at every row of the source.

It shares with the engine only the definitions (plan and expression tree); values, times and windows are done again
here, in plain Python over lists of dicts whose times are datetimes.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from cumulant.core.expr import columns
from cumulant.core.plan import FeaturePlan, Lookup, Source, Window
from cumulant.core.units import micros
from cumulant.features.offline.row_identity import row_identity
from cumulant.features.online.python_compiler import compile_node

Row = dict[str, Any]
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def features(
    plan: FeaturePlan,
    sources: dict[str, list[Row]],
    rows: list[Row] | None = None,
    *,
    as_of: datetime | None = None,
) -> list[Row]:
    """Windows and lookups of `plan` for each row of the entity source, or of `rows` beside what it held `as_of`."""
    asked = sources[plan.entity] if rows is None else rows
    until = as_of or datetime.max.replace(tzinfo=UTC)
    return [of_row(plan, sources, row, None if rows is None else until) for row in asked]


def of_row(plan: FeaturePlan, sources: dict[str, list[Row]], row: Row, apart: datetime | None) -> Row:
    """Of a row given apart from what was known by a moment, or of one that the history has (None)."""
    at = row[plan.predict_at.column]
    moment = None if at is None else at + timedelta(microseconds=plan.predict_at.offset_us)
    found = {}
    for spec in plan.features:
        measure = spec.window or spec.lookup
        if measure is None:
            continue
        key = [row[name] for name in measure.by]
        if moment is None or None in key:
            found[spec.name] = None
            continue
        past = [one for one in sources[measure.source] if in_force(one, moment)]
        itself = apart is not None and measure.source == plan.entity and _brings(plan, measure)
        if itself and not _held(plan, measure, row, [p for p in past if _known(plan, measure, p, apart)]):
            past = [*past, row]
        known = [
            (when, i, other) for i, other in enumerate(past) if (when := _enters(plan, measure, other)) is not None
        ]
        same = sorted(
            (k for k in known if k[0] <= moment and [k[2][name] for name in measure.by] == key),
            key=lambda k: (k[0], *_rank(plan.sources[measure.source], k[2]), k[1]),
        )
        found[spec.name] = _lookup(measure, same, moment) if spec.lookup else _window(plan, measure, same, moment)
    return found


def _rank(source: Source, row: Row) -> tuple[datetime, int]:
    """The place of a row among those known at one moment: by its own time, then by the number of its key."""
    return row[source.event_time], row_identity([row[name] for name in source.key])


def in_force(row: Row, moment: datetime) -> bool:
    """Whether a version of a row counts at a moment; rows without versions always do."""
    begin, end, at = row.get("__from"), row.get("__until"), micros(moment - EPOCH)
    return (begin is None or begin <= at) and (end is None or at < end)


def _held(plan: FeaturePlan, measure: Window | Lookup, row: Row, past: list[Row]) -> bool:
    names = [*plan.sources[plan.entity].key, *measure.by]
    mine = [row.get(name) for name in names]
    return bool(plan.sources[plan.entity].key) and None not in mine and any([p[n] for n in names] == mine for p in past)


def _known(plan: FeaturePlan, measure: Window | Lookup, row: Row, as_of: datetime | None) -> bool:
    """Whether the history of a moment has the row and its place, though values of it may become known later."""
    event = row[plan.sources[measure.source].event_time]
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
    source = plan.sources[measure.source]
    event = row[source.event_time]
    times = [event]
    for name in _columns(measure):
        known = source.known.get(name)
        if known is None:
            continue
        start = event if known.column is None else row[known.column]
        times.append(None if start is None else start + timedelta(microseconds=known.delay_us))
    return None if None in times else max(times)


def _lookup(measure: Lookup, same: list[tuple[datetime, int, Row]], moment: datetime) -> Any:
    if not same:
        return None
    when, _, newest = same[-1]
    too_old = measure.within_us is not None and moment - when > timedelta(microseconds=measure.within_us)
    return None if too_old else newest[measure.column]


def inside(row: Row) -> Row:
    return {name: micros(value - EPOCH) if isinstance(value, datetime) else value for name, value in row.items()}


def _window(plan: FeaturePlan, window: Window, same: list[tuple[datetime, int, Row]], moment: datetime) -> Any:
    start = moment - timedelta(microseconds=window.span_us)
    rows = [row for when, _, row in same if when > start]
    if window.value is None:
        return len(rows)
    kinds = {field.name: field.dtype for field in plan.sources[window.source].fields}
    value = compile_node(window.value, kinds)
    values = [v for v in (value(inside(row), {}) for row in rows) if v is not None]
    return aggregate(window.agg, values)


def aggregate(agg: str, values: list[Any]) -> Any:
    if agg == "count":
        return len(values)
    if agg == "distinct":
        return len(set(values))
    if not values or (agg == "std" and len(values) < 2):
        return None
    if agg == "last":
        return values[-1]
    if agg in {"min", "max"}:
        found = min(values) if agg == "min" else max(values)
        return int(found) if isinstance(found, bool) else found
    if agg == "sum" and all(isinstance(v, int) for v in values):
        return sum(values) if -(2**63) <= sum(values) < 2**63 else None
    exact = [Fraction(v) for v in values]
    total = sum(exact, Fraction(0))
    if agg == "sum":
        return total
    if agg == "mean":
        return total / len(exact)
    exact = [Fraction(float(v)) for v in values]  # deviations are of float64 values
    mean = sum(exact, Fraction(0)) / len(exact)
    return _root(sum((v - mean) ** 2 for v in exact) / (len(exact) - 1))


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

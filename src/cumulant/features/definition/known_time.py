"""Known time: the rule for every window, lookup and input of the row itself.

A row *enters* the windows and lookups that read some of its columns at the latest of its event time and the known times
of these columns. A column that is another's known time is known at its own value. A row with a null among these times
never enters.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import msgspec

from cumulant.core.errors import DefinitionError, NotKnownYetError
from cumulant.core.expr import columns as columns_of
from cumulant.core.plan import FeaturePlan, KnownAt, Lookup, PredictAt, Source, Window
from cumulant.core.units import show_duration


class EntryRule(msgspec.Struct, frozen=True, order=True):
    """When a row enters: max(event_time + delay_us, and each of `columns` plus its delay)."""

    delay_us: int
    columns: tuple[tuple[str, int], ...] = ()


def known_at(source: Source, column: str) -> KnownAt | None:
    """When `column` becomes known, or None where it comes with the row."""
    declared = source.known.get(column)
    if declared is not None:
        return declared
    is_known_time = any(known.column == column for known in source.known.values())
    return KnownAt(column=column) if is_known_time else None


def entry_rule(source: Source, columns: Iterable[str]) -> EntryRule:
    """When a row of `source` enters what reads `columns` of it."""
    known_times = [
        known for known in (known_at(source, column) for column in sorted(set(columns))) if known is not None
    ]
    delay = max([0, *(known.delay_us for known in known_times if known.column is None)])
    times = {(known.column, known.delay_us) for known in known_times if known.column is not None}
    return EntryRule(delay, tuple(sorted(times)))


def columns_read(measure: Window | Lookup) -> frozenset[str]:
    if isinstance(measure, Lookup):
        return frozenset((measure.column, *measure.by))
    inside = columns_of(measure.value) if measure.value is not None else frozenset()
    return inside | frozenset(measure.by)


def measure_entry_rule(plan_sources: dict[str, Source], measure: Window | Lookup) -> EntryRule:
    return entry_rule(plan_sources[measure.source], columns_read(measure))


def require_reachable(source: Source, lookup: Lookup) -> None:
    """Refuse a lookup whose age limit ends before any row is known.

    Raises:
        DefinitionError: its age counts from the event time, and rows become known after more than `within`.
    """
    delays = {column: entry_rule(source, [column]).delay_us for column in (lookup.column, *lookup.by)}
    slowest, delay = max(delays.items(), key=lambda each: each[1])
    if lookup.order == "event_time" and lookup.within_us is not None and lookup.within_us < delay:
        raise DefinitionError(
            f'"{slowest}" of {source.name} is known {show_micros(delay)} after "{source.event_time}", so no row '
            f"is at most {show_micros(lookup.within_us)} old by event time",
            subject=slowest,
            hint=f'make `within` longer than {show_micros(delay)}, or leave out order="event_time": then the age of a '
            "row counts from when it became known",
        )


def may_count_itself(entity: Source, predict_at: PredictAt | None, measure: Window | Lookup) -> bool:
    """Whether the row predicted for can be among the rows of its own window, as its request brings it.

    Not where the window waits for a known-time column, or for a delay that no prediction outlasts.
    """
    if measure.source != entity.name or predict_at is None:
        return False
    enters = entry_rule(entity, columns_read(measure))
    if enters.columns:
        return False
    return predict_at.column != entity.event_time or predict_at.offset_us >= enters.delay_us


def counts_itself(plan: FeaturePlan, measure: Window | Lookup) -> bool:
    """`may_count_itself` for a measure of a compiled plan."""
    return may_count_itself(plan.sources[plan.entity], plan.predict_at, measure)


def require_known(entity: Source, predict_at: PredictAt | None, column: str, *, place: str) -> None:
    """Refuse `column` of the row itself as an input where it is not known at the prediction.

    Raises:
        NotKnownYetError: it is known at another column's time, or later than the prediction.
    """
    known = known_at(entity, column)
    if known is None:
        return
    when = "the row has no time" if predict_at is None else show_moment(predict_at)
    if known.column is not None:
        later = f" plus {show_micros(known.delay_us)}" if known.delay_us else ""
        becomes = "at its own time" if known.column == column else f'at "{known.column}"{later}'
    else:
        becomes = f'{show_micros(known.delay_us)} after "{entity.event_time}"'
        same_clock = predict_at is not None and predict_at.column == entity.event_time
        if same_clock and predict_at is not None and known.delay_us <= predict_at.offset_us:
            return
    raise NotKnownYetError(
        f'{place}: "{column}" of {entity.name} is not known at the prediction ({when}): it becomes known {becomes}',
        subject=column,
        hint=f'use it in a window, as {entity.name}.by(...).mean("{column}", window="30d"), which counts past rows '
        "once they are known; or predict later",
    )


def is_late(entity: Source, predict_at: PredictAt | None, column: str) -> bool:
    """Whether `column` of the row itself is not known at the prediction."""
    try:
        require_known(entity, predict_at, column, place="")
    except NotKnownYetError:
        return True
    return False


def show_moment(predict_at: PredictAt) -> str:
    """The moment of prediction as a project file would write it: `sched_dep - 2h`."""
    if not predict_at.offset_us:
        return predict_at.column
    return f"{predict_at.column} {'-' if predict_at.offset_us < 0 else '+'} {show_micros(abs(predict_at.offset_us))}"


def show_micros(micros: int) -> str:
    return show_duration(timedelta(microseconds=micros))

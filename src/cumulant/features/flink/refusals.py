"""What of a feature plan Flink SQL cannot compute as the plan means it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from cumulant.core.errors import DefinitionError
from cumulant.core.expr import columns
from cumulant.core.plan import Corrections, FeaturePlan, Source, Window
from cumulant.features.definition.known_time import measure_entry_rule
from cumulant.features.definition.tiers import tiers
from cumulant.features.offline.groups import MeasureGroup, event_columns, groups_of

#: event time of Flink has milliseconds
MILLISECOND_US = 1000
#: an interval of Flink has three digits for its days
LONGEST_US = 999 * 86_400 * 1_000_000


class FlinkRefusal(msgspec.Struct, frozen=True):
    """`subject`: a source (`tx`), a column (`tx.at`) or a feature; `reason`: what it has that cannot be computed."""

    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}"


def refusals(
    plan: FeaturePlan,
    *,
    functions: Mapping[str, str] | None = None,
    lateness: Mapping[str, int | None] | None = None,
) -> list[FlinkRefusal]:
    """Empty where every feature is right within a relative 1e-9.

    Args:
        plan: what is to be computed.
        functions: of sources, their `prepare` (`file.py:function`).
        lateness: of sources, how late rows come, in microseconds; None: any age. Not given, it is not examined.
    """
    return [*_of_sources(plan, lateness), *_of_moments(plan), *_of_features(plan), *_of_tiers(plan, functions or {})]


def require_compilable(
    plan: FeaturePlan, *, functions: Mapping[str, str] | None = None, lateness: Mapping[str, int | None] | None = None
) -> None:
    """Refuse a plan by the names of what is refused.

    Raises:
        DefinitionError: Flink SQL cannot compute the plan.
    """
    refused = refusals(plan, functions=functions, lateness=lateness)
    if refused:
        raise DefinitionError(
            f"Flink SQL cannot compute these features: {'; '.join(map(str, refused))}",
            subject="features",
            hint="change what is named, or leave the features to another engine: docs/reference/engines.md",
        )


def _of_sources(plan: FeaturePlan, lateness: Mapping[str, int | None] | None) -> Iterator[FlinkRefusal]:
    for name in sources_read(plan):
        source = plan.sources[name]
        if isinstance(source.corrections, Corrections):
            yield FlinkRefusal(name, "on_repeat: latest, no window of Flink takes back what a correction replaces")
        for field in source.fields:
            if field.zone is not None and field.zone != "UTC" and field.dtype == "time":
                yield FlinkRefusal(
                    f"{name}.{field.name}", f"times of {field.zone} without an offset, write them in UTC"
                )
            if field.dtype == "bytes" and field.name in columns_read(plan, source):
                yield FlinkRefusal(f"{name}.{field.name}", "bytes, which JSON has no type for")
        if lateness is not None and lateness.get(name) is None and plan.needs_state:
            yield FlinkRefusal(name, "no lateness, a watermark needs to know how late rows come")
    if not plan.sources[plan.entity].key:
        yield FlinkRefusal(plan.entity, "no key, by which the features of a row are told apart")


def _of_moments(plan: FeaturePlan) -> Iterator[FlinkRefusal]:
    at, entity = plan.predict_at, plan.sources[plan.entity]
    if at is None or not plan.needs_state:
        return
    if at.column != entity.event_time:
        reason = "predict_at is not the event time, no watermark says when every row up to it has come"
        yield FlinkRefusal(f"{plan.entity}.{at.column}", reason)
    if at.offset_us % MILLISECOND_US:
        yield FlinkRefusal(plan.entity, "predict_at has an offset finer than a millisecond")


def _of_features(plan: FeaturePlan) -> Iterator[FlinkRefusal]:
    for group in groups_of(plan):
        source = plan.sources[group.source]
        entry = measure_entry_rule(plan.sources, next(iter(group.measures.values())))
        delays = [entry.delay_us, *(delay for _, delay in entry.columns)]
        for name in group.measures:
            yield from (FlinkRefusal(name, reason) for reason in _of_measure(group, name, source, delays))


def _of_measure(group: MeasureGroup, name: str, source: Source, delays: list[int]) -> Iterator[str]:
    measure = group.measures[name]
    reach = group.reach_us(measure)
    slot = group.slots[name]
    kind = None if slot < 0 else group.kinds[slot]
    ordered = not isinstance(measure, Window) or measure.agg == "last"
    if isinstance(measure, Window):
        if measure.agg == "std" and kind != "bool":
            yield "std of numbers, the deviation of Flink loses the digits that values share"
        span = measure.span_us
    else:
        span = (reach or 1) - 1
    if group.takes_latest_event(measure):
        yield 'order="event_time" of rows that become known at another column: Flink has them in the order of that'
    if span % MILLISECOND_US or any(delay % MILLISECOND_US for delay in delays):
        yield "a duration finer than a millisecond, the resolution of event time in Flink"
    if span > LONGEST_US:
        yield "a duration above 999 days, the longest interval of Flink"
    if ordered and not source.key:
        yield f"the last row of {source.name}, which has no key to order rows of one moment by"
    elif ordered and not _identified(source):
        yield f"the last row of {source.name}, whose key is not one whole number: rows of one moment need a hash of it"


def _of_tiers(plan: FeaturePlan, functions: Mapping[str, str]) -> Iterator[FlinkRefusal]:
    for name, tier in tiers(plan, functions).items():
        if tier.tier == "batch":
            yield FlinkRefusal(name, f"reads rows of {', '.join(tier.functions)}, Python over whole tables")


def _identified(source: Source) -> bool:
    """Whether the row identity is the key itself; of other keys it is a hash that no function of Flink gives."""
    dtypes = {field.name: field.dtype for field in source.fields}
    return len(source.key) == 1 and dtypes[source.key[0]] == "int"


def sources_read(plan: FeaturePlan) -> list[str]:
    """The sources that a job reads."""
    return sorted({plan.entity, *(group.source for group in groups_of(plan))})


def columns_read(plan: FeaturePlan, source: Source) -> set[str]:
    """The columns that a job reads of a source."""
    read = {name for group in groups_of(plan) if group.source == source.name for name in event_columns(group, source)}
    if source.name == plan.entity:
        read |= {*source.key, *(name for group in groups_of(plan) for name in group.by)}
        read |= {name for spec in plan.features if spec.expr is not None for name in columns(spec.expr)}
        read |= {source.event_time} if source.event_time and groups_of(plan) else set()
    else:
        read |= set(source.key)
    return read

"""Groups of windows and lookups that share their events: same source, same key, same time of entry. Needs no Polars."""

from __future__ import annotations

from functools import cached_property

import msgspec

from cumulant.core.expr import Column, Node
from cumulant.core.expr import columns as columns_of
from cumulant.core.ids import digest
from cumulant.core.plan import DType, FeaturePlan, Lookup, Source, Window
from cumulant.features.definition import known_time
from cumulant.features.definition.dtypes import Kind, resolve
from cumulant.features.definition.known_time import EntryRule

Measure = Window | Lookup
#: change with the order of events that become known at one moment (`row_order`): by identity, and by content
_BY_IDENTITY, _BY_CONTENT = 2, 3
#: where a plan keeps its groups
_GROUPS = "measure_groups"


class MeasureGroup(msgspec.Struct, frozen=True, dict=True):
    """`values` are what the measures read of an event; `slots`: which of them, -1 for none (counting rows)."""

    number: int
    source: str
    by: tuple[str, ...]
    entry: EntryRule
    measures: dict[str, Measure]
    values: tuple[Node, ...]
    kinds: tuple[DType, ...]
    slots: dict[str, int]
    #: rows apart from the history may count in their own windows
    counts_itself: bool

    @cached_property
    def span_us(self) -> int:
        """How far back the measures look; lookups without a limit apart."""
        reaches = (self.reach_us(measure) for measure in self.measures.values())
        return max([0, *(reach for reach in reaches if reach is not None)])

    @cached_property
    def unlimited(self) -> bool:
        """Whether a lookup takes the newest event however old."""
        return any(self.reach_us(measure) is None for measure in self.measures.values())

    @cached_property
    def takes_latest_ever(self) -> bool:
        """Whether a lookup without a limit takes the latest event time, which any event known before may have."""
        return any(self.reach_us(of) is None and self.takes_latest_event(of) for of in self.measures.values())

    def reach_us(self, measure: Measure) -> int | None:
        """As the function: of an age that counts from the event time, which is earlier by the delay of the entry."""
        return reach_us(measure, self.entry.delay_us)

    def takes_latest_event(self, measure: Measure) -> bool:
        """Whether a measure is in an order of its own: of event times, where they are not in the order of entry."""
        return measure.order == "event_time" and bool(self.entry.columns)

    @cached_property
    def ordered(self) -> bool:
        """Whether the order of events known at one moment matters."""
        return any(isinstance(measure, Lookup) or measure.agg == "last" for measure in self.measures.values())

    @cached_property
    def orders_by_event_time(self) -> bool:
        """Whether events known at one moment are in the order of their own times, which then may differ."""
        return self.ordered and bool(self.entry.columns)


def event_columns(group: MeasureGroup, source: Source) -> set[str]:
    """The columns of a group's source that its windows and lookups need; where order matters, also those of it."""
    inside = {name for node in group.values for name in columns_of(node)}
    times = {column for column, _ in group.entry.columns} | ({source.event_time} if source.event_time else set())
    order = source.key or content_columns(source)
    return {*group.by, *inside, *times, *(order if group.ordered else ())}


def content_columns(source: Source) -> tuple[str, ...]:
    """The columns by whose values rows without a key are ordered."""
    return tuple(sorted(field.name for field in source.fields))


def order_rule(plan: FeaturePlan) -> int:
    """The number of the rule for events known at one moment by which features of the plan are computed."""
    by_content = any(group.ordered and not plan.sources[group.source].key for group in groups_of(plan))
    return _BY_CONTENT if by_content else _BY_IDENTITY


def reach_us(measure: Measure, delay_us: int = 0) -> int | None:
    """The measure covers events known in (t - reach, t], an age limit inclusively; None for all up to t.

    Events enter `delay_us` after their event time or later.
    """
    if isinstance(measure, Window):
        return measure.span_us
    if measure.within_us is None:
        return None
    return measure.within_us + 1 if measure.order != "event_time" else max(measure.within_us + 1 - delay_us, 0)


def groups_of(plan: FeaturePlan) -> tuple[MeasureGroup, ...]:
    """The groups of a plan, in the order in which its features first need them; made once and kept with the plan."""
    derived = vars(plan)
    if _GROUPS not in derived:
        derived[_GROUPS] = _make_groups(plan)
    groups: tuple[MeasureGroup, ...] = derived[_GROUPS]
    return groups


def _make_groups(plan: FeaturePlan) -> tuple[MeasureGroup, ...]:
    measures: dict[tuple[str, tuple[str, ...], EntryRule], dict[str, Measure]] = {}
    for spec in plan.features:
        measure = spec.window or spec.lookup
        if measure is not None:
            key = (measure.source, measure.by, known_time.measure_entry_rule(plan.sources, measure))
            measures.setdefault(key, {})[spec.name] = measure
    return tuple(_group(plan, number, key, of) for number, (key, of) in enumerate(measures.items()))


def _group(
    plan: FeaturePlan, number: int, key: tuple[str, tuple[str, ...], EntryRule], measures: dict[str, Measure]
) -> MeasureGroup:
    columns: dict[str, Kind] = {field.name: field.dtype for field in plan.sources[key[0]].fields}
    values: dict[str, Node] = {}
    slots: dict[str, int] = {}
    for name, measure in measures.items():
        node = Column(measure.column) if isinstance(measure, Lookup) else measure.value
        if node is None:
            slots[name] = -1
            continue
        read = identity(node)
        values.setdefault(read, node)
        slots[name] = list(values).index(read)
    return MeasureGroup(
        number=number,
        source=key[0],
        by=key[1],
        entry=key[2],
        measures=measures,
        values=tuple(values.values()),
        kinds=tuple(_dtype(resolve(node, columns)[1]) for node in values.values()),
        slots=slots,
        counts_itself=known_time.counts_itself(plan, next(iter(measures.values()))),
    )


def _dtype(kind: Kind) -> DType:
    """A constant null only ever counts as absent; any type holds it."""
    return "int" if kind == "null" else kind


def identity(node: Node) -> str:
    """Equal for equal trees."""
    return digest(node)


def fingerprint(plan: FeaturePlan) -> str:
    """Names what stored state must hold for this plan: equal plans, or plans that differ in expressions only."""
    layout = [
        {"source": group.source, "by": group.by, "entry": group.entry, "measures": group.measures}
        for group in groups_of(plan)
    ]
    keys = {name: source.key for name, source in plan.sources.items()}
    return digest([layout, keys])

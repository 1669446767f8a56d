"""Memory that the features of a plan take, by measured bytes a row: computed at once, and in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cumulant.core.plan import FeaturePlan, Window
from cumulant.features.offline.groups import MeasureGroup, groups_of

#: bytes a number and whether it is null take
_CELL = 9
#: of an event and of a query: codes, times, orders, ranges and what is between them
_EVENT, _VALUE, _QUERY, _RESULT = 80, 40, 160, 2 * _CELL
#: aggregations with more between: positions of equal values, squares
_WIDE, _WIDE_AGGREGATIONS = 200, frozenset({"distinct", "std"})
#: groups that are computed at the same time
_AT_ONCE = 4


class SourceSize(NamedTuple):
    """Rows of a source, and the bytes that the columns of one take."""

    rows: int
    width: float


def group_need(group: MeasureGroup, events: SourceSize, queries: SourceSize) -> float:
    """Bytes that one group's windows take, beside the columns of their rows."""
    wide = any(isinstance(measure, Window) and measure.agg in _WIDE_AGGREGATIONS for measure in group.measures.values())
    event = _EVENT + _VALUE * len(group.values) + _WIDE * wide
    return events.rows * event + queries.rows * (_QUERY + _RESULT * len(group.measures) + _WIDE * wide)


def whole_need(plan: FeaturePlan, sizes: Mapping[str, SourceSize]) -> float:
    """Bytes that all features take where they are computed at once."""
    entity = sizes[plan.entity]
    groups = sorted((group_need(group, sizes[group.source], entity) for group in groups_of(plan)), reverse=True)
    columns = sum(size.rows * size.width for size in sizes.values())
    return columns + sum(groups[:_AT_ONCE]) + entity.rows * output_width(plan, entity.width)


def output_width(plan: FeaturePlan, width: float) -> float:
    """Bytes of a row with its measures, its features and a copy of them, as it is written."""
    return width + _CELL * (len(plan.features) + 2 * len(plan.names))


def results_width(group: MeasureGroup, width: float) -> float:
    """Bytes of a row's results of a group with its position; texts may take those of a whole event."""
    texts = sum(group.kinds[slot] in {"str", "bytes"} for slot in group.slots.values() if slot is not None)
    return _CELL * (1 + len(group.measures)) + texts * width

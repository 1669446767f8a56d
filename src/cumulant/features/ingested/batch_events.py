"""The rows of a batch as events of the windows and lookups that read them, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from cumulant.core.plan import FeaturePlan
from cumulant.features.offline.frames import entry_times, inside, key_codes, kinds, numbers, valid
from cumulant.features.offline.groups import MeasureGroup
from cumulant.features.offline.kernel.timeline import Flags, Ints
from cumulant.features.offline.row_order import row_identities
from cumulant.features.offline.windows import evaluate_node
from cumulant.features.online.state import entity_key, typecode
from cumulant.features.posted.event_columns import GroupEvent

#: how values are packed: float64 or int64
DTYPES: dict[str, type[np.generic]] = {"d": np.float64, "q": np.int64}


@dataclass(frozen=True)
class ValueColumn:
    """One value of each event: numbers with 0 where they are not `valid` (None: all are), or texts."""

    numbers: np.ndarray[Any, Any] | None
    texts: Sequence[str | None] | None = None
    valid: Flags | None = None

    def take(self, places: Ints) -> ValueColumn:
        if self.texts is not None:
            return ValueColumn(None, [self.texts[place] for place in places.tolist()])
        assert self.numbers is not None
        return ValueColumn(self.numbers[places], None, None if self.valid is None else self.valid[places])

    def item(self, place: int) -> Any:
        """The value of one event; None for null."""
        if self.texts is not None:
            return self.texts[place]
        assert self.numbers is not None
        return None if self.valid is not None and not self.valid[place] else self.numbers[place].item()


@dataclass(frozen=True)
class BatchEvents:
    """Events of one group, by entity and within it in the order of the group.

    `starts`: the place of the first event of each entity of `keys`, and the number of events. `first_moments`: as
    `GroupEvent.first_moment`.
    """

    keys: list[bytes]
    starts: Ints
    times: Ints
    event_times: Ints
    identities: Ints
    first_moments: Ints
    values: list[ValueColumn]

    @cached_property
    def owners(self) -> Ints:
        """The place in `keys` of the entity of each event."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.starts))

    def parts(self, most_entities: int, most_events: int) -> Iterator[BatchEvents]:
        """The events in their order, of at most so many entities and so many of them at a time."""
        begin, count = 0, len(self.times)
        while begin < count:
            first = int(self.owners[begin])
            end = min(begin + most_events, int(self.starts[min(first + most_entities, len(self.keys))]))
            yield self.take(np.arange(begin, end), first, int(self.owners[end - 1]) + 1)
            begin = end

    def take(self, places: Ints, begin: int = 0, end: int | None = None) -> BatchEvents:
        """The events at these places, which are ascending; `begin` and `end`: of the entities that may have any."""
        end = len(self.keys) if end is None else end
        owners = self.owners[places]
        starts = np.searchsorted(owners, np.arange(begin, end + 1))
        return BatchEvents(
            self.keys[begin:end],
            starts,
            self.times[places],
            self.event_times[places],
            self.identities[places],
            self.first_moments[places],
            [column.take(places) for column in self.values],
        )

    def event(self, place: int) -> GroupEvent:
        """One event by itself."""
        columns = (self.times, self.event_times, self.identities, self.first_moments)
        time, event_time, identity, first = (int(column[place]) for column in columns)
        return GroupEvent(time, event_time, identity, first, [column.item(place) for column in self.values])


def batch_events(plan: FeaturePlan, group: MeasureGroup, frame: pl.DataFrame) -> BatchEvents:
    """The events of rows in their inside types (`read_fields`); rows that do not enter the group have none."""
    source = plan.sources[group.source]
    assert source.event_time is not None, "a source of windows and lookups has an event time"
    times, codes = entry_times(frame, source, group.entry), key_codes([frame], group.by)[0]
    enters = codes >= 0
    if (known := valid(times)) is not None:
        enters &= known
    places = np.flatnonzero(enters)
    codes, moments = codes[places], numbers(times)[places]
    event_times = numbers(frame[source.event_time])[places]
    identities = row_identities(frame.select(source.key)[places], source)
    order = np.lexsort((identities, event_times, moments, codes))
    places, codes = places[order], codes[order]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1]))) if len(codes) else places
    keys = [entity_key(group.number, values) for values in inside(frame.select(group.by)[places[starts]])]  # type: ignore[arg-type]
    return BatchEvents(
        keys,
        np.append(starts, len(codes)),
        moments[order],
        event_times[order],
        identities[order],
        first_moments(plan, group.source, frame)[places],
        _values(plan, group, frame, places),
    )


def _values(plan: FeaturePlan, group: MeasureGroup, frame: pl.DataFrame, places: Ints) -> list[ValueColumn]:
    columns = kinds(plan.sources[group.source].fields)
    values = []
    for node, kind in zip(group.values, group.kinds, strict=True):
        series, code = evaluate_node(node, frame, columns).gather(places), typecode(kind)
        if code is None:
            values.append(ValueColumn(None, series.to_list()))
            continue
        data = series.fill_null(0.0).to_numpy() if code == "d" else numbers(series)
        values.append(ValueColumn(data.astype(DTYPES[code], copy=False), None, valid(series)))
    return values


def first_moments(plan: FeaturePlan, source: str, frame: pl.DataFrame) -> Ints:
    """Of each row its event time, or the moment of the prediction for it if that comes first; 0 without either."""
    event_time, predict_at = plan.sources[source].event_time, plan.predict_at
    assert event_time is not None
    moments = pl.col(event_time).cast(pl.Int64)
    if predict_at is not None and plan.entity == source and predict_at.column in frame.columns:
        moments = pl.min_horizontal(moments, pl.col(predict_at.column).cast(pl.Int64) + predict_at.offset_us)
    return frame.select(moments.fill_null(0)).to_series().to_numpy()


def ranges(starts: Ints) -> list[tuple[int, int]]:
    """The first place of each entity, and that after its last."""
    return list(pairwise(starts.tolist()))

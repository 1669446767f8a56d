"""Event time of a stream: how far each partition has come, and which rows are late.

A partition's rows come in its order, so that whether a row is late is decided by the rows before it in its partition,
and not by how messages were cut into batches, nor by how many processes read the topic. The watermark of a source is
that of its slowest partition which is not idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import polars as pl

from cumulant.core.plan import Field
from cumulant.core.units import from_micros, micros, to_micros
from cumulant.data.policy import SourcePolicy
from cumulant.data.streams.records import StreamState
from cumulant.data.streams.typed_rows import typed_rows
from cumulant.ports.streams import Messages

#: how far a row may be dated after now and move the time of its partition: clocks that are synchronised differ by less
_SKEW = timedelta(seconds=1)


class EventTimes(NamedTuple):
    """`late`: which rows are (None: none is); `newest`: by partition, the event time that it has come to, in
    microseconds.
    """

    late: pl.Series | None
    newest: dict[str, int]


def event_times(  # noqa: PLR0917
    rows: pl.DataFrame,
    numbers: pl.Series,
    batch: Sequence[Messages],
    policy: SourcePolicy,
    before: Mapping[str, int],
    now: datetime,
) -> EventTimes:
    """The event times of rows, of which `numbers` are those of their messages in the batch. `before`: as `newest`, of
    earlier batches. A correction is late by when it became known: what it corrects may be of any age.

    Raises:
        DataError: the declaration names a zone that there is not.
    """
    time = policy.spec.time
    if time is None or not rows.height:
        return EventTimes(None, {})
    starts = np.array([*accumulate(len(messages.values) for messages in batch)])
    owners = np.array([messages.partition for messages in batch])
    partitions = owners[np.searchsorted(starts, numbers.to_numpy(), side="right")]
    known_times = policy.spec.known_times if policy.spec.on_repeat == "latest" else ()
    columns = [time.column, *(name for name in known_times if name in rows.columns and name != time.column)]
    typed = typed_rows(rows, policy, "", [Field(name, "time") for name in columns]).cast(pl.Int64)
    latest = typed.select(pl.max_horizontal(columns)).to_series()
    frame = pl.DataFrame({"time": typed[time.column], "known": latest, "partition": partitions})
    limit = to_micros(now + _SKEW)
    moved = pl.when(pl.col("time") <= limit).then(pl.col("time"))  # a row with a wrong date makes no other one late
    known = {int(partition): newest for partition, newest in before.items()}
    earlier = pl.col("partition").replace_strict(known, default=None, return_dtype=pl.Int64)
    newest = pl.max_horizontal(moved.cum_max().forward_fill().over("partition"), earlier)
    frame = frame.with_columns(newest=newest)
    ends = frame.group_by("partition").agg(pl.col("newest").max()).drop_nulls()
    late = None
    if policy.lateness is not None:
        late = (frame["known"] < frame["newest"] - micros(policy.lateness)).fill_null(value=False)
        late = late if late.any() else None
    return EventTimes(late, {str(partition): moment for partition, moment in ends.rows()})


def watermark(state: StreamState, policy: SourcePolicy, now: datetime) -> datetime | None:
    """The moment up to which rows have come, as far as no later one is late; None where no row has come.

    Partitions without a row for longer than `idle` do not hold it back; where all are, the furthest one counts.
    """
    if not state.event_times:
        return None
    active = [
        newest
        for partition, newest in state.event_times.items()
        if now - state.active.get(partition, now) <= policy.idle
    ]
    newest = min(active) if active else max(state.event_times.values())
    return from_micros(newest) - (policy.lateness or timedelta())

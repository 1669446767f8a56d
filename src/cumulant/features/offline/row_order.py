"""The order of events that become known at one moment: by the time of the event, then by the identity of the row.

Neither depends on when a row came or where it stands, so that training and servers, which receive rows in any order,
agree. Rows without a key are ordered by their values in the columns that the plan reads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from cumulant.core.plan import Source
from cumulant.features.offline.frames import inside, numbers
from cumulant.features.offline.groups import MeasureGroup, content_columns
from cumulant.features.offline.kernel.timeline import Ints
from cumulant.features.offline.row_identity import NO_IDENTITY, row_identity


def row_identities(rows: pl.DataFrame, source: Source) -> Ints:
    """The identity of each row."""
    keys = rows.select(source.key)
    if not keys.width:
        return np.full(rows.height, NO_IDENTITY, dtype=np.int64)
    if keys.width == 1 and keys.dtypes[0] == pl.Int64:
        return keys.to_series().fill_null(NO_IDENTITY).to_numpy()
    return np.array([row_identity(row) for row in inside(keys)], dtype=np.int64)


def tie_order(group: MeasureGroup, source: Source, frame: pl.DataFrame) -> Callable[[Ints], list[Ints]]:
    """For `Timeline`: what rows of `frame` that enter at one moment are sorted by, the most significant first."""

    def order_of(positions: Ints) -> list[Ints]:
        by = []
        if source.key:
            by.append(row_identities(frame.select(source.key)[positions], source))
        elif group.ordered:
            by.append(_content_ranks(frame.select(content_columns(source))[positions]))
        if group.orders_by_event_time and source.event_time is not None:
            by.insert(0, numbers(frame[source.event_time].gather(positions)))
        return by

    return order_of


def _content_ranks(rows: pl.DataFrame) -> Ints:
    """The place of each row in the order of values, column by column: null first, false before true, texts by code
    point. Rows that are equal have any order.
    """
    floats = [pl.col(name) + 0.0 for name, dtype in rows.schema.items() if dtype == pl.Float64]  # -0.0 is 0.0
    order = rows.with_columns(floats).select(pl.arg_sort_by(rows.columns, nulls_last=False)).to_series().to_numpy()
    ranks = np.empty(rows.height, dtype=np.int64)
    ranks[order] = np.arange(rows.height)
    return ranks

"""Whether new rows are as new as declared. Rows after now do not count for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from cumulant.core.units import duration, from_micros, show_duration, to_micros
from cumulant.data.batches import NewFile, new_rows
from cumulant.data.parts import Workshop
from cumulant.data.snapshot import BatchCheck


def stale(new: Sequence[NewFile], shop: Workshop, now: datetime) -> tuple[BatchCheck, ...]:
    """A warning where the newest event of all new rows is older than `table.fresh` allows.

    It never refuses them: rows of the past may be delivered late, or again.
    """
    time, declared = shop.spec.time, shop.spec.table.fresh
    if time is None or declared is None:
        return ()
    rows, newest = 0, None
    for file in new:
        frame = new_rows(file, shop)
        if time.column not in frame.collect_schema() or not file.accepted.rows.rows:
            continue
        at = pl.col(time.column).to_physical()
        count, latest = frame.select(pl.len(), at.filter(at <= to_micros(now)).max().alias("latest")).collect().row(0)
        rows += count
        newest = latest if newest is None else max(newest, latest or newest)
    if newest is None:
        return ()
    age, limit = now - from_micros(int(newest)), duration(declared)
    if age <= limit:
        return ()
    shown = show_duration(timedelta(seconds=round(age.total_seconds())))
    name = new[0].url if len(new) == 1 else f"the {len(new):,} new files together"
    text = f"{name}: the newest {time.column} of the new rows is {shown} old, more than the {declared} of `fresh`"
    return (
        BatchCheck(
            batch=name,
            rule="table:fresh",
            column=None,
            severity="warn",
            failed=0,
            rows=rows,
            limit=None,
            text=text,
        ),
    )

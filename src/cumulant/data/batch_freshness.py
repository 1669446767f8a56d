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
    """A warning where the newest event of all new rows is older than `table.fresh` allows, or all are after now.

    It never refuses them: rows of the past may be delivered late, or again.
    """
    time, declared = shop.spec.time, shop.spec.table.fresh
    if time is None or declared is None:
        return ()
    rows, newest = _newest(new, time.column, shop, now)
    if not rows:
        return ()
    name = new[0].url if len(new) == 1 else f"the {len(new):,} new files together"
    if newest is None:
        text = f"{name}: each {time.column} of the new rows is after now, so that their age is not known"
    elif now - newest > duration(declared):
        shown = show_duration(timedelta(seconds=round((now - newest).total_seconds())))
        text = f"{name}: the newest {time.column} of the new rows is {shown} old, more than the {declared} of `fresh`"
    else:
        return ()
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


def _newest(new: Sequence[NewFile], column: str, shop: Workshop, now: datetime) -> tuple[int, datetime | None]:
    """How many new rows have a time, and the newest that is not after `now`."""
    rows, newest = 0, None
    for file in new:
        frame = new_rows(file, shop)
        if column not in frame.collect_schema() or not file.accepted.rows.rows:
            continue
        at = pl.col(column).to_physical()
        count, latest = frame.select(at.count(), at.filter(at <= to_micros(now)).max().alias("latest")).collect().row(0)
        rows += count
        if latest is not None:
            newest = latest if newest is None else max(newest, latest)
    return rows, None if newest is None else from_micros(int(newest))

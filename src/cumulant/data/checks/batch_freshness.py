"""Whether new rows are as new as declared. Rows after now do not count for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from cumulant.core.plan import Field
from cumulant.core.units import from_micros, show_duration
from cumulant.data.checks.batches import NewFile, name_combined, scan_new_rows
from cumulant.data.parts.packs import blocks_of
from cumulant.data.parts.part import PartContext, PartFacts
from cumulant.data.profile import Profile
from cumulant.data.snapshot import BatchCheck
from cumulant.data.text.casts import conform
from cumulant.data.text.zones import UTC_MICROS


def check_freshness(new: Sequence[NewFile], context: PartContext, now: datetime) -> tuple[BatchCheck, ...]:
    """A warning where the newest event of all new rows is older than `table.fresh`, or all are after now."""
    time, limit = context.spec.time, context.policy.fresh
    if time is None or limit is None or not new:
        return ()
    rows, newest = _count_past_events([scan_new_rows(file, context) for file in new], time.column, now)
    if not rows:
        return ()
    name = new[0].url if len(new) == 1 else name_combined(len(new))
    if newest is None:
        text = f"{name}: each {time.column} of the new rows is after now, so that their age is not known"
    elif now - newest > limit:
        shown = show_duration(timedelta(seconds=round((now - newest).total_seconds())))
        declared = context.spec.table.fresh
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


def newest_event(
    context: PartContext, accepted: Sequence[PartFacts], profile: Profile, now: datetime
) -> datetime | None:
    """The newest event up to now, where `fresh` is declared; a wrong year would hide that rows are missing."""
    event = context.spec.time
    if event is None or context.policy.fresh is None or event.column not in profile:
        return None
    newest = profile[event.column].max
    if newest is not None and newest <= now.timestamp() * 1_000_000:
        return from_micros(int(newest))  # of a personal column none is recorded
    return _count_past_events([block.scan(context) for block in blocks_of(accepted)], event.column, now)[1]


def _count_past_events(frames: Sequence[pl.LazyFrame], column: str, now: datetime) -> tuple[int, datetime | None]:
    """How many rows have a time, and the newest that is not after `now`."""
    at = pl.col(column)
    times = pl.concat([conform(rows, [Field(column, "time")]) for rows in frames])
    past = at.filter(at <= pl.lit(now, UTC_MICROS)).max().cast(pl.Int64)
    count, newest = times.select(at.count(), past.alias("newest")).collect().row(0)
    return count, None if newest is None else from_micros(newest)

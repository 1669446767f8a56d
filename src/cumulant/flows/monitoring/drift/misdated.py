"""Rows of a log that are dated after they were answered: a fault of the data, whatever their values."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from cumulant.core.units import to_micros
from cumulant.monitoring.drift.findings import DriftFinding
from cumulant.monitoring.drift.profiles import ProfileBlock

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.window_counts import Windows


def misdated_rows(now: Windows, rows: int) -> tuple[DriftFinding, ...]:
    """One finding where rows are left out for their time; `rows` are not. It is active where the log's newest day has
    some. No chance makes such a row, so one is enough.
    """
    days = {day: count for day, count in sorted(now.misdated.items()) if count}
    if not days:
        return ()
    total = sum(days.values())
    effect = total / (total + rows)
    first, last = (ProfileBlock(_midnight(day), days[day], timed=True) for day in (min(days), max(days)))
    return (
        DriftFinding(
            feature="event time",
            role="feature",
            kind="data_fault",
            what="future",
            effect=effect,
            low=None,
            high=None,
            least=effect,
            p=0.0,
            needed=1.0,
            before=None,
            now=float(total),
            since=first,
            until=last,
            windows=len(days),
            active=max(days) == max(now.misdated),
            span=1,
            weight=1.0,
            design=1.0,
        ),
    )


def _midnight(day: date) -> int:
    return to_micros(datetime.combine(day, time(), UTC))

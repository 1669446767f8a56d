"""The rows of all versions of a model by window: how many there are depends on callers, not on who answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import polars as pl

from cumulant.core import units
from cumulant.core.units import to_micros
from cumulant.monitoring.drift.findings import DriftFinding
from cumulant.monitoring.drift.profiles import ProfileBlock
from cumulant.monitoring.drift.volume import Volume, row_counts
from cumulant.monitoring.tables import MOMENT, parts_of

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.window_counts import Windows
    from cumulant.flows.monitoring.monitor import MonitorRequest
    from cumulant.monitoring.drift.findings import Findings
    from cumulant.monitoring.drift.profiles import DriftProfile
    from cumulant.monitoring.policy import DriftPolicy
    from cumulant.monitoring.tables import PredictionTable


@dataclass(frozen=True)
class ModelTraffic:
    """`lag`: by how much, in microseconds, rows of a log's days usually end before these days; None: not known."""

    blocks: tuple[ProfileBlock, ...]
    lag: int | None = None


def traffic_of(table: PredictionTable, length: timedelta, before: datetime | None = None) -> tuple[ProfileBlock, ...]:
    """The windows of a log that is read for one version, with the rows of all versions of its model; else none."""
    moments = table.traffic
    if moments is None:
        return ()
    if before is not None:
        moments = moments.filter(pl.col(MOMENT) < before)
    some = moments.select(pl.len()).collect().item()
    from cumulant.monitoring.drift.blocks import by_time

    return by_time(parts_of(moments), length).blocks if some else ()


def row_findings(
    now: Windows,
    reference: DriftProfile,
    findings: Findings,
    request: MonitorRequest,
    policy: DriftPolicy,
    *,
    served: bool,
) -> Volume:
    """What is unusual about numbers of rows: of a served version those of all versions of its model, up to the moment
    of the look. Its reference is a sample of its training, whose number of rows says nothing of the log's.
    """
    length, traffic = policy.window, now.traffic() if served else None
    if request.windows:
        return Volume()
    if traffic is None:
        return row_counts(() if served else reference.blocks, findings.windows, length, policy, looks=findings.looks)
    moment = units.to_micros(request.before or datetime.now(UTC))
    past = [block for block in traffic.blocks if block.start < moment]
    until = None if traffic.lag is None or request.until is not None else moment - traffic.lag
    return row_counts((), past, length, policy, looks=findings.looks, until=until, shown=findings.windows)


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

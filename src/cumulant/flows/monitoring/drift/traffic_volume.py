"""Findings on the numbers of rows by window, and on rows that are left out for their time."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from cumulant.core import units
from cumulant.core.units import to_micros
from cumulant.monitoring.drift.findings import DriftFinding, Findings
from cumulant.monitoring.drift.profiles import DriftProfile, ProfileBlock
from cumulant.monitoring.drift.volume import Volume, row_counts

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.sides import MonitorRequest
    from cumulant.flows.monitoring.drift.window_counts import Windows
    from cumulant.monitoring.policy import DriftPolicy


def row_findings(
    now: Windows,
    reference: DriftProfile,
    findings: Findings,
    request: MonitorRequest,
    policy: DriftPolicy,
    *,
    served: bool,
) -> Volume:
    """Unusual numbers of rows; of a served version those of all versions of its model, up to `now`.

    The reference of a served version is a sample of its training, so its row counts are not used.
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
    """A finding where rows are left out for their time; `rows` are not. Active where the log's newest day has some."""
    days = {day: count for day, count in sorted(now.misdated.items()) if count}
    if not days:
        return ()
    total = sum(days.values())
    effect = total / (total + rows)
    first, last = (
        ProfileBlock(to_micros(datetime.combine(day, time(), UTC)), days[day], timed=True)
        for day in (min(days), max(days))
    )
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

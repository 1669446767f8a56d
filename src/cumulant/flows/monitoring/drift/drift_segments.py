"""Segments that carry a change, and the joint comparison of all features with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.monitoring.drift.window_counts import TableWindows

if TYPE_CHECKING:
    from cumulant.flows.monitoring.drift.window_counts import Windows
    from cumulant.monitoring.drift.findings import DriftFinding, Findings
    from cumulant.monitoring.drift.joint import Joint
    from cumulant.monitoring.drift.profiles import DriftProfile

#: the most values of a column whose values are segments
_FEW_VALUES = 50


@dataclass(frozen=True)
class Sides:
    before: TableWindows
    now: Windows
    reference: DriftProfile
    #: windows that are looked at together at most
    span: int


def compare_jointly(sides: Sides, last: int) -> Joint | None:
    """The windows up to the newest with enough rows against the reference, by all features together."""
    from cumulant.monitoring.drift.joint import jointly

    names = [column.name for column in sides.reference.columns if column.role == "feature"]
    now, codes = sides.now.rows(
        [name for name in names if name in sides.now.columns], max(last + 1 - sides.span, 0), last
    )
    before, own = sides.before.all(names), sides.before.cut.codes
    if codes is None or own is None:
        return jointly(before, now, sides.reference)
    return jointly(before, now, sides.reference, blocks=(own, codes))


def _segments(reference: DriftProfile) -> list[str]:
    """The columns whose values may be segments: features with few categories."""
    return [
        column.name
        for column in reference.columns
        if column.role == "feature"
        and column.cells.kind == "category"
        and len(column.cells.values) + len(column.cells.known) <= _FEW_VALUES
    ]


def add_segments(finding: DriftFinding, findings: Findings, sides: Sides) -> DriftFinding:
    """The finding with the segments that carry it, in its newest windows: a long one costs no more."""
    by = [name for name in _segments(sides.reference) if name != finding.feature and name in sides.now.columns]
    if not by or finding.what == "absent":
        return finding
    column = next(column for column in sides.reference.columns if column.name == finding.feature)
    first, last = findings.windows.index(finding.since), findings.windows.index(finding.until)
    now, _ = sides.now.rows([finding.feature, *by], max(first, last + 1 - sides.span), last)
    then = sides.before.all([finding.feature, *by])
    from cumulant.monitoring.drift.segmenting import segments

    return msgspec.structs.replace(finding, segments=segments(then, now, column, finding.what, by))

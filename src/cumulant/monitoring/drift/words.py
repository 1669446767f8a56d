"""A finding in a sentence."""

from __future__ import annotations

from cumulant.core.units import from_micros
from cumulant.monitoring.drift.findings import DriftFinding
from cumulant.monitoring.drift.profiles import ProfileBlock


def sentence(finding: DriftFinding, *, examples: bool = True) -> str:
    """What moved, in the terms of the column: `21.6% missing, 10.0% before`. `examples`: of values that are new."""
    if finding.what == "absent":
        return "the column is missing from the rows"
    if finding.what == "constant":
        return f"all values are in one group: {max(finding.parts, key=lambda part: part.now).values}"
    if finding.what == "shift":
        moved = (f"{part.values}: {part.before:.1%} to {part.now:.1%}" for part in finding.parts[:2])
        return "; ".join(moved)
    if finding.what in ("few", "many", "gap"):
        return f"{finding.now or 0:,.0f} rows; {finding.before or 0:,.0f} expected from the same weekdays before"
    if finding.what == "future":
        return (
            f"{finding.now or 0:,.0f} rows are dated after they were answered by more than serving.clock_skew: left out"
        )
    nouns = {
        "missing": "missing",
        "unreadable": "unreadable or of another type",
        "unseen": "of unseen values",
        "impossible": "far outside of the reference",
        "tails": "in the outer hundredths of the reference",
    }
    before = f", {finding.before:.1%} before" if finding.before else ""
    such = f": {', '.join(finding.examples)}" if finding.examples and examples else ""
    return f"{finding.now or 0.0:.1%} {nouns[finding.what]}{before}{such}"


def day(block: ProfileBlock) -> str:
    """Where a window begins: its time, or the number of its first row."""
    if not block.timed:
        return f"row {block.start + 1:,}"
    at = from_micros(block.start)
    return at.strftime("%Y-%m-%d" if at.hour == at.minute == at.second == 0 else "%Y-%m-%d %H:%M")


def begin_text(block: ProfileBlock) -> str:
    """Where a window begins, in a sentence: its time with the zone, or the number of its first row."""
    return f"{from_micros(block.start):%Y-%m-%d %H:%M} UTC" if block.timed else day(block)

"""A release on a terminal: where it is, what each metric has shown, and what it still needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.flows.reports.terminal import clean, table
from cumulant.flows.reports.wording import duration
from cumulant.release.wording import format_value

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from cumulant.flows.release.views import MetricView, ReleaseView, StageView

BAR = 14
_MARKS = {"passed": "✓", "now": "▶", "to come": "·", "ended here": "✗", "skipped": "–"}
_STYLES = {
    "promoted": "bold green",
    "rolled_back": "bold red",
    "inconclusive": "bold yellow",
    "superseded": "bold yellow",
    "paused": "bold yellow",
    "awaiting_approval": "bold yellow",
}


def page(found: ReleaseView, *, waiting: str | None = None) -> RenderableType:
    """Everything on one screen: a sentence, the stages, the metrics, what is missing."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [headline(found), stages(found)]
    if found.metrics:
        parts.append(metrics(found))
    if found.evaluation:
        parts.append(Text(clean(found.evaluation), style="dim"))
    if found.lacks:
        parts.append(Text("still needed: " + clean("; ".join(found.lacks)), style="dim"))
    parts += [Text("note: " + clean(text), style="dim") for text in found.assumptions]
    if waiting:
        parts.append(Text(f"{clean(waiting)} waits until this release is over", style="dim"))
    return Group(*parts)


def headline(found: ReleaseView) -> Text:
    """The sentence, with the release's id."""
    from rich.text import Text

    style = _STYLES.get(found.status, "bold")
    return Text.assemble((clean(found.sentence), style), ("  " + found.id, "dim"))


def line(found: ReleaseView) -> str:
    """One line for a log or a pipe."""
    split = f"{found.candidate} {found.weight:g}%, {found.champion} {100 - found.weight:g}%"
    if found.mirror:
        split += f", {found.mirror:g}% mirrored"
    return f"{found.step}: {found.status.replace('_', ' ')} ({split}) {found.reason}".rstrip()


def stages(found: ReleaseView) -> Table:
    rows = [
        (
            f"{_MARKS[one.state]} {one.name}",
            bar(_progress(one)) if one.state == "now" else one.state,
            _time(one),
            _count(one, "candidate"),
            _count(one, "champion"),
        )
        for one in found.stages
    ]
    heads = ["stage", "progress", "time", "candidate", "champion"]
    return table(heads, rows, right=["candidate", "champion"])


def metrics(found: ReleaseView) -> Table:
    """What each metric is in both arms, and how far the evidence is: towards harm, and towards being fine."""
    rows = [
        (
            one.metric,
            _value(one, one.champion),
            _value(one, one.candidate),
            _between(one),
            _margin(one),
            "" if one.harm is None else bar(one.harm),
            "" if one.harm is None else bar(one.fine),
            one.verdict,
        )
        for one in found.metrics
    ]
    heads = ["metric", found.champion, found.candidate, "difference", "margin", "harm", "no harm", "so far"]
    if len(set(heads)) < len(heads):
        heads[1:3] = ["champion", "candidate"]
    return table(heads, rows, right=heads[1:3])


def bar(share: float) -> str:
    """A share of what is needed: `█████░░░░░  48%`; it never looks full before it is."""
    shown = min(1.0, max(0.0, share))
    full = BAR if shown >= 1 else min(BAR - 1, round(shown * BAR))
    percent = 100 if shown >= 1 else min(99, int(shown * 100))
    return f"{'█' * full}{'░' * (BAR - full)} {percent:3d}%"


def _progress(one: StageView) -> float:
    """Of the shortest time and of the fewest requests, whichever is further away."""
    parts = [one.seconds / one.at_least] if one.at_least else []
    if one.samples_needed:
        parts.append(one.samples.get("candidate", 0) / one.samples_needed)
        if one.weight:
            parts.append(one.samples.get("champion", 0) / one.samples_needed)
    return min(parts, default=1.0)


def _time(one: StageView) -> str:
    if one.state in ("to come", "skipped"):
        return f"at least {duration(one.at_least)}"
    if one.state == "now":
        return f"{duration(one.seconds)} of {duration(one.at_least)}"
    return duration(one.seconds)


def _count(one: StageView, arm: str) -> str:
    if one.state in ("to come", "skipped"):
        return ""
    if arm == "champion" and not one.weight:
        return ""
    return f"{one.samples.get(arm, 0):,}"


def _value(one: MetricView, value: float | None) -> str:
    return "–" if value is None else format_value(value, one.unit)


def _between(one: MetricView) -> str:
    if one.low is None or one.high is None:
        return ""
    return f"{format_value(one.low, one.unit)} to {format_value(one.high, one.unit)}"


def _margin(one: MetricView) -> str:
    if one.margin is None:
        return ""
    return format_value(one.margin, "%" if one.unit == "ms" else one.unit)

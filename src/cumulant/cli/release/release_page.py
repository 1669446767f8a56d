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


def page(release: ReleaseView, *, waiting: str | None = None) -> RenderableType:
    """Everything on one screen: a sentence, the stages, the metrics, what is missing."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [headline(release), stages(release)]
    if release.metrics:
        parts.append(metrics(release))
    if release.evaluation:
        parts.append(Text(clean(release.evaluation), style="dim"))
    if release.lacks:
        parts.append(Text("still needed: " + clean("; ".join(release.lacks)), style="dim"))
    if release.slo_override:
        parts.append(Text(f"objectives: {clean(release.slo_override)}", style="yellow"))
        parts += [Text(clean(release.slo_hold), style="dim")] if release.slo_hold else []
    parts += [Text("note: " + clean(text), style="dim") for text in release.assumptions]
    if waiting:
        parts.append(Text(f"{clean(waiting)} waits until this release is over", style="dim"))
    return Group(*parts)


def headline(release: ReleaseView) -> Text:
    from rich.text import Text

    style = _STYLES.get(release.status, "bold")
    return Text.assemble((clean(release.sentence), style), ("  " + release.id, "dim"))


def line(release: ReleaseView) -> str:
    split = f"{release.candidate} {release.weight:g}%, {release.champion} {100 - release.weight:g}%"
    if release.mirror:
        split += f", {release.mirror:g}% mirrored"
    return f"{release.step}: {release.status.replace('_', ' ')} ({split}) {release.reason}".rstrip()


def stages(release: ReleaseView) -> Table:
    rows = [
        (
            f"{_MARKS[stage.state]} {stage.name}",
            bar(_progress(stage)) if stage.state == "now" else stage.state,
            _time(stage),
            _count(stage, "candidate"),
            _count(stage, "champion"),
        )
        for stage in release.stages
    ]
    heads = ["stage", "progress", "time", "candidate", "champion"]
    return table(heads, rows, right=["candidate", "champion"])


def metrics(release: ReleaseView) -> Table:
    """What each metric is in both arms, and how far the evidence is: towards harm, and towards being fine."""
    rows = [
        (
            metric.metric,
            _value(metric, metric.champion),
            _value(metric, metric.candidate),
            _between(metric),
            _margin(metric),
            "" if metric.harm is None else bar(metric.harm),
            "" if metric.harm is None else bar(metric.fine),
            metric.verdict,
        )
        for metric in release.metrics
    ]
    heads = ["metric", release.champion, release.candidate, "difference", "margin", "harm", "no harm", "so far"]
    if len(set(heads)) < len(heads):
        heads[1:3] = ["champion", "candidate"]
    return table(heads, rows, right=heads[1:3])


def bar(share: float) -> str:
    """A share of what is needed: `█████░░░░░  48%`; it never looks full before it is."""
    shown = min(1.0, max(0.0, share))
    full = BAR if shown >= 1 else min(BAR - 1, round(shown * BAR))
    percent = 100 if shown >= 1 else min(99, int(shown * 100))
    return f"{'█' * full}{'░' * (BAR - full)} {percent:3d}%"


def _progress(stage: StageView) -> float:
    """Of the shortest time and of the fewest requests, whichever is further away."""
    parts = [stage.seconds / stage.at_least] if stage.at_least else []
    if stage.samples_needed:
        parts.append(stage.samples.get("candidate", 0) / stage.samples_needed)
        if stage.weight:
            parts.append(stage.samples.get("champion", 0) / stage.samples_needed)
    return min(parts, default=1.0)


def _time(stage: StageView) -> str:
    if stage.state in ("to come", "skipped"):
        return f"at least {duration(stage.at_least)}"
    if stage.state == "now":
        return f"{duration(stage.seconds)} of {duration(stage.at_least)}"
    return duration(stage.seconds)


def _count(stage: StageView, arm: str) -> str:
    if stage.state in ("to come", "skipped"):
        return ""
    if arm == "champion" and not stage.weight:
        return ""
    return f"{stage.samples.get(arm, 0):,}"


def _value(metric: MetricView, value: float | None) -> str:
    return "–" if value is None else format_value(value, metric.unit)


def _between(metric: MetricView) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{format_value(metric.low, metric.unit)} to {format_value(metric.high, metric.unit)}"


def _margin(metric: MetricView) -> str:
    if metric.margin is None:
        return ""
    return format_value(metric.margin, "%" if metric.unit == "ms" else metric.unit)

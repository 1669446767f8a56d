"""The plan of a release on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.flows.reports.terminal import clean, heading, table, warn
from cumulant.release.wording import format_value, rounded, span

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.release.plan.power import MetricPower, StagePlan
    from cumulant.flows.release.plan.release_plan import ReleasePlan


def show(console: Console, plan: ReleasePlan) -> None:
    """A sentence, a table of stages, what cannot be decided, and what to do."""
    from rich.text import Text

    console.print(Text(_sentence(plan), style="bold"), soft_wrap=True)
    console.print(_traffic(plan), style="dim", soft_wrap=True)
    console.print(
        f"{format_value(plan.errors, '%')} of them fail today; alpha {format_value(plan.alpha, '%')}", style="dim"
    )
    rows = [_row(stage) for stage in plan.stages]
    heads = ["stage", "done after", "candidate's requests", "errors seen from", "slow seen from", "shown to be fine"]
    console.print(table(heads, rows, right=["candidate's requests"]))
    console.print(
        "seen from: the smallest harm that 80% of releases see, in the shortest and in the longest time of the stage;",
        style="dim",
    )
    console.print(
        "shown to be fine: time until a candidate that is as good is shown to be within its margins", style="dim"
    )
    if plan.quality_pairs is not None:
        console.print(_quality(plan), style="dim", soft_wrap=True)
    warn(console, plan.warnings)
    if plan.instead:
        heading(console, "instead of labels that come too late")
        for text in plan.instead:
            console.print(f"  {clean(text)}", soft_wrap=True)
    if plan.undecided:
        heading(console, "cannot be decided in time")
        for text in plan.undecided:
            console.print(f"  {clean(text)}", soft_wrap=True)
    if plan.advice:
        heading(console, "what helps")
        for text in plan.advice:
            console.print(f"  {clean(text)}", soft_wrap=True)


def _sentence(plan: ReleasePlan) -> str:
    if plan.seconds is None or plan.requests_needed is None:
        return "such a release would end as inconclusive: the evidence for a promotion does not come in time"
    text, needed = "a candidate that is no worse is promoted after", f"{plan.requests_needed:,.0f} requests"
    if plan.requests_a_day is not None or plan.observed_seconds is None:
        return f"{text} {span(plan.seconds)}, at the earliest ({needed})"
    return f"{text} {needed}, at the earliest: they take {span(plan.seconds)} at the rate that was measured"


def _traffic(plan: ReleasePlan) -> str:
    day = "" if plan.requests_a_day is None else f" ({plan.requests_a_day:,.0f} a day)"
    return f"at {rounded(plan.requests)} requests a second{day}, {plan.source}"


def _row(stage: StagePlan) -> tuple[object, ...]:
    by_name = {power.metric: power for power in stage.metrics}
    errors, latency = by_name.get("errors"), by_name.get("latency")
    return (
        stage.name,
        span(stage.seconds) if stage.samples_seconds <= stage.at_most else "never",
        f"{stage.requests / stage.at_most * stage.seconds:,.0f}"
        if stage.samples_seconds <= stage.at_most
        else f"{stage.requests:,.0f}",
        _harm(errors),
        _harm(latency),
        _fine(stage),
    )


def _harm(power: MetricPower | None) -> str:
    if power is None:
        return "–"
    short, long = (f"{factor:g}x" if factor else "not even 10x" for factor in (power.harm_shortest, power.harm_longest))
    return short if short == long else f"{short}, {long}"


def _fine(stage: StagePlan) -> str:
    if not stage.metrics:
        return "–"
    times = [power.fine_seconds for power in stage.metrics]
    return "not in time" if None in times else span(max(seconds for seconds in times if seconds is not None))


def _quality(plan: ReleasePlan) -> str:
    text = f"quality: about {plan.quality_pairs:,.0f} mirrored requests with labels show that it is within its margin"
    return text + ("" if plan.quality_seconds is None else f", which come in {span(plan.quality_seconds)}")

"""The plan of a release on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.flows.reports.terminal import clean, heading, table, warn
from cumulant.release.wording import format_value, rounded, span

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.release.plan.release_plan import Plan, Power, StagePlan


def show(console: Console, found: Plan) -> None:
    """A sentence, a table of stages, what cannot be decided, and what to do."""
    from rich.text import Text

    console.print(Text(_sentence(found), style="bold"), soft_wrap=True)
    console.print(_traffic(found), style="dim", soft_wrap=True)
    console.print(
        f"{format_value(found.errors, '%')} of them fail today; alpha {format_value(found.alpha, '%')}", style="dim"
    )
    rows = [_row(one) for one in found.stages]
    heads = ["stage", "done after", "candidate's requests", "errors seen from", "slow seen from", "shown to be fine"]
    console.print(table(heads, rows, right=["candidate's requests"]))
    console.print(
        "seen from: the smallest harm that 80% of releases see, in the shortest and in the longest time of the stage;",
        style="dim",
    )
    console.print(
        "shown to be fine: time until a candidate that is as good is shown to be within its margins", style="dim"
    )
    if found.quality_pairs is not None:
        console.print(_quality(found), style="dim", soft_wrap=True)
    warn(console, found.warnings)
    if found.instead:
        heading(console, "instead of labels that come too late")
        for text in found.instead:
            console.print(f"  {clean(text)}", soft_wrap=True)
    if found.undecided:
        heading(console, "cannot be decided in time")
        for text in found.undecided:
            console.print(f"  {clean(text)}", soft_wrap=True)
    if found.advice:
        heading(console, "what helps")
        for text in found.advice:
            console.print(f"  {clean(text)}", soft_wrap=True)


def _sentence(found: Plan) -> str:
    if found.seconds is None or found.requests_needed is None:
        return "such a release would end as inconclusive: the evidence for a promotion does not come in time"
    text, needed = "a candidate that is no worse is promoted after", f"{found.requests_needed:,.0f} requests"
    if found.requests_a_day is not None or found.observed_seconds is None:
        return f"{text} {span(found.seconds)}, at the earliest ({needed})"
    observed = span(found.observed_seconds)
    return f"{text} {needed}, at the earliest: {span(found.seconds)} while requests come as in the last {observed}"


def _traffic(found: Plan) -> str:
    day = "" if found.requests_a_day is None else f" ({found.requests_a_day:,.0f} a day)"
    return f"at {rounded(found.requests)} requests a second{day}, {found.source}"


def _row(one: StagePlan) -> tuple[object, ...]:
    by_name = {power.metric: power for power in one.metrics}
    errors, latency = by_name.get("errors"), by_name.get("latency")
    return (
        one.name,
        span(one.seconds) if one.samples_seconds <= one.at_most else "never",
        f"{one.requests / one.at_most * one.seconds:,.0f}"
        if one.samples_seconds <= one.at_most
        else f"{one.requests:,.0f}",
        _harm(errors),
        _harm(latency),
        _fine(one),
    )


def _harm(power: Power | None) -> str:
    if power is None:
        return "–"
    short, long = (f"{one:g}x" if one else "not even 10x" for one in (power.harm_shortest, power.harm_longest))
    return short if short == long else f"{short}, {long}"


def _fine(one: StagePlan) -> str:
    if not one.metrics:
        return "–"
    times = [power.fine_seconds for power in one.metrics]
    return "not in time" if None in times else span(max(found for found in times if found is not None))


def _quality(found: Plan) -> str:
    text = f"quality: about {found.quality_pairs:,.0f} mirrored requests with labels show that it is within its margin"
    return text + ("" if found.quality_seconds is None else f", which come in {span(found.quality_seconds)}")

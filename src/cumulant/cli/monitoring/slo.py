"""`cumulant slo`: service level objectives, how much of their budget is left, and their rules for Prometheus."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.terminal import table
from cumulant.monitoring.objective_text import objective_sentence

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.observe.slo import SloView
    from cumulant.monitoring.objectives import BurnState, ObjectiveState

app = application(
    "slo",
    "Objectives of the served model: how many requests must be answered well, and how many were.",
    examples=["cumulant slo show", "cumulant slo rules > slo.rules.yaml"],
)


class SliSource(StrEnum):
    """Whose counters the rules read, as `slo_rules.SOURCES`, which is loaded later."""

    gateway = "gateway"
    servers = "servers"


@command(
    app,
    operations=("stack.objectives",),
    action="stack.show",
    examples=["cumulant slo show", "cumulant slo show --json"],
)
def show(call: Invocation) -> None:
    """Show each objective: the share of good requests, what is left of its budget, and how fast that burns.

    Requests are those in the log of the gateways, as callers saw them. Exit code 1: an alert of an objective fires,
    or no release begins (`release.slo`).
    """
    with call.api() as api:
        view = api.call("stack.objectives")
    call.answer(view, lambda console: _print(console, view))
    if view.hold or any(state.firing for state in view.objectives):
        raise typer.Exit(1)


@command(
    app,
    operations=("stack.rules",),
    action="stack.show",
    examples=["cumulant slo rules", "cumulant slo rules --source servers"],
)
def rules(
    call: Invocation,
    *,
    source: Annotated[
        SliSource, typer.Option(help="Whose counters: of the gateway (Envoy), or of the servers without one.")
    ] = SliSource.gateway,
    selector: Annotated[
        str,
        typer.Option(metavar="MATCHERS", help="Narrows the series that are read, such as 'environment=\"prod\"'."),
    ] = "",
) -> None:
    """Print a rule file for Prometheus: burn rates, budget and alerts, under the names of Sloth's dashboards."""
    with call.api() as api:
        text = api.call("stack.rules", source=source.value, selector=selector).rules
    call.answer({"rules": text}, lambda console: _write(console, text))


def _write(console: Console, text: str) -> None:
    console.file.write(text)


def _print(console: Console, view: SloView) -> None:
    rows = [_row(state) for state in view.objectives]
    console.print(table(("objective", "target", "good", "requests", "budget left", "alert"), rows))
    burns = [(state.sli, *_burn_row(burn)) for state in view.objectives for burn in state.burn]
    console.print(table(("objective", "windows", "burn rates", "alert above", "requests", ""), burns))
    for state in view.objectives:
        if state.episode is not None:
            since = f"since {state.episode.begun:%Y-%m-%d %H:%M} UTC: {objective_sentence(state)}"
            console.print(since, style="yellow", soft_wrap=True)
    if view.hold:
        console.print(f"no release begins now: {view.hold}", style="yellow", soft_wrap=True)
    for state in view.objectives[:1]:
        if state.since is not None:
            console.print(f"the log of the gateway begins at {state.since:%Y-%m-%d %H:%M} UTC", style="dim")


def _row(state: ObjectiveState) -> tuple[str, ...]:
    within = "" if state.within is None else f" within {state.within}"
    return (
        f"{state.sli}{within}",
        f"{state.target * 100:g}% in {state.window}",
        "no requests" if state.ratio is None else f"{state.ratio * 100:.3f}%",
        f"{state.requests:,}",
        "" if state.budget_left is None else f"{state.budget_left * 100:.1f}%",
        state.firing or "",
    )


def _burn_row(burn: BurnState) -> tuple[str, ...]:
    rates = " / ".join("-" if rate is None else f"{rate:.2f}" for rate in (burn.long_rate, burn.short_rate))
    windows = f"{burn.long} / {burn.short}"
    return windows, rates, f"{burn.limit:g}", f"{burn.requests:,}", _alert(burn)


def _alert(burn: BurnState) -> str:
    if not burn.firing:
        return ""
    return burn.severity if burn.ends_below is None else f"{burn.severity}, ends below {burn.ends_below:.3g}"

"""`cumulant alerts`: what fires, who knows, and whether messages arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.runtime.alerts.flow import Tested
    from cumulant.runtime.alerts.views import AlertsView, AlertView

app = application(
    "alerts",
    "What fires, who knows of it, and whether messages arrive.",
    examples=["cumulant alerts list", "cumulant alerts ack 3fa2c1", "cumulant alerts test"],
)

Id = Annotated[str, typer.Argument(metavar="ID", help="An alert's id, or the beginning of it.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands in the event.")]


@command(
    app,
    action="alerts.show",
    name="list",
    examples=["cumulant alerts list", "cumulant alerts list --ended --json"],
)
def list_(
    call: Invocation,
    ended: Annotated[bool, typer.Option("--ended", help="Also alerts that are over, the newest first.")] = False,
    model: Annotated[str, typer.Option(metavar="NAME", help="Only of this model.", show_default=False)] = "",
) -> None:
    """Show what fires or is pending, the most urgent first, silences, and how each receiver stands."""
    from cumulant.runtime.alerts.views import overview

    with call.project() as project:
        found = overview(project, principal=project.principal(), ended=ended, model=model)
    call.answer(found, lambda console: _print(console, found))


@command(app, action="alerts.show", examples=["cumulant alerts show 3fa2c1"])
def show(call: Invocation, name: Id) -> None:
    """Show one alert: what moved, since when, what it likely is, what to do next, and who knows."""
    from cumulant.runtime.alerts.flow import show as flow
    from cumulant.runtime.alerts.views import view

    with call.project() as project:
        found = view(flow(project, name, principal=project.principal()))
    call.answer(found, lambda console: _print_one(console, found))


@command(
    app, action="alerts.steer", examples=["cumulant alerts ack 3fa2c1", "cumulant alerts ack 3fa2c1 --reason 'on it'"]
)
def ack(call: Invocation, name: Id, reason: Reason = "") -> None:
    """Say that somebody knows: no reminders any more; that it is over, or became worse, is still told."""
    from cumulant.runtime.alerts.flow import acknowledge
    from cumulant.runtime.alerts.views import view

    with call.project() as project:
        found = view(acknowledge(project, name, principal=project.principal(), reason=reason))
    call.answer(found, lambda console: console.print(f"{found.id}: acknowledged by {found.acknowledged}"))


@command(
    app,
    action="alerts.steer",
    examples=[
        "cumulant alerts silence --rule covariate --for 7d --reason 'a new airport opens'",
        "cumulant alerts silence --subject 'weather_*' --for 2h",
        "cumulant alerts silence --end 5d0c11aa",
    ],
)
def silence(
    call: Invocation,
    *,
    model: Annotated[str, typer.Option(metavar="PATTERN", help="Of models.")] = "*",
    rule: Annotated[str, typer.Option(metavar="PATTERN", help="Of rules.")] = "*",
    subject: Annotated[str, typer.Option(metavar="PATTERN", help="Of subjects: features, sources, metrics.")] = "*",
    span: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long: 2h, 7d.", show_default=False)
    ] = None,
    reason: Reason = "",
    end: Annotated[str | None, typer.Option(metavar="ID", help="End this silence instead.")] = None,
) -> None:
    """Send people no messages about some alerts for a while. They are recorded all the same.

    That an alert is over is told to those who were told of it. What still fires when a silence ends is told then.
    Alertmanager is told of all alerts and has silences of its own.
    """
    from cumulant.runtime.alerts import flow

    if (end is None) == (span is None):
        raise UsageError("a silence needs its length", hint="add --for 2h, or --end ID to end one")
    with call.project() as project:
        who = project.principal()
        if end is not None:
            flow.unsilence(project, end, principal=who)
            call.answer({"ended": end}, lambda console: console.print(f"the silence {end} is over"))
            return
        made = flow.silence(
            project, principal=who, span=span or "", model=model, rule=rule, subject=subject, reason=reason
        )
    until = f"{made.until:%Y-%m-%d %H:%M} UTC"
    text = f"silence {made.id}: rule {rule}, subject {subject}, model {model}, until {until}"
    call.answer(made, lambda console: console.print(text))


@command(
    app,
    action="alerts.test",
    name="test",
    examples=["cumulant alerts test", "cumulant alerts test --receiver slack-3fa2c1 --json"],
)
def try_(
    call: Invocation,
    receiver: Annotated[
        str, typer.Option(metavar="NAME", help="Only this one, as `alerts list` names it.", show_default=False)
    ] = "",
) -> None:
    """Send a sample to each receiver of `monitoring.notify`, and say what happened.

    Exit code 3 where one does not answer, 4 where one refuses, 2 where its address cannot be used.
    """
    from cumulant.runtime.alerts.flow import try_receivers

    with call.project() as project:
        found = try_receivers(project, principal=project.principal(), receiver=receiver)
    call.answer({"receivers": found}, lambda console: _print_tested(console, found))
    faults = [one for one in found if not one.taken]
    if faults:
        raise typer.Exit(max(map(_code, faults)))


def _code(fault: Tested) -> int:
    """The exit code that the fault's error would have had."""
    from cumulant.core.errors import EngineUnavailableError, OverloadedError, TerminalError

    if fault.code in (EngineUnavailableError.code, OverloadedError.code):
        return 3
    return 4 if fault.code == TerminalError.code else 2


def _print_tested(console: Console, found: list[Tested]) -> None:
    from cumulant.runtime.report_page.terminal import table

    rows = [(one.receiver, one.url, "took it" if one.taken else "did not", one.said) for one in found]
    console.print(table(["receiver", "url", "", ""], rows))


def _print(console: Console, found: AlertsView) -> None:
    from cumulant.runtime.report_page.terminal import clean, table

    if found.alerts:
        rows = [(one.id, one.level, _state(one), one.model, one.rule, one.subject, one.since) for one in found.alerts]
        console.print(table(["id", "level", "state", "model", "rule", "subject", "since"], rows))
    else:
        console.print("nothing fires")
    for one in found.silences:
        matched = f"rule {one.rule}, subject {one.subject}, model {one.model}"
        why = f" ({one.reason})" if one.reason else ""
        console.print(clean(f"silence {one.id}: {matched}, until {one.until:%Y-%m-%d %H:%M} UTC, by {one.by}{why}"))
    if found.receivers:
        told = [(one.receiver, one.url, one.waiting, one.left_out, one.fault or "–") for one in found.receivers]
        console.print(table(["receiver", "url", "waiting", "left out", "fault"], told))
    else:
        console.print("monitoring.notify names no receiver: alerts are in the events only", style="dim")
    console.print(f"{found.spent} messages of the budget of {found.budget}", style="dim")


def _state(one: AlertView) -> str:
    more = [
        word for word, so in (("silenced", one.silenced), ("grouped", one.grouped), ("known", one.acknowledged)) if so
    ]
    return f"{one.status} ({', '.join(more)})" if more else one.status


def _print_one(console: Console, one: AlertView) -> None:
    from cumulant.runtime.report_page.terminal import clean
    from cumulant.runtime.report_page.wording import instant

    console.print(clean(f"{one.level}: {one.rule} in {one.subject} of {one.model}, {_state(one)}"), style="bold")
    console.print(clean(one.text), soft_wrap=True)
    told = f"people know at level {one.told}" if one.told else "people were not told"
    rows = [("first seen", one.began), ("fired", one.fired), ("last seen", one.seen), ("over", one.resolved)]
    for label, when in rows:
        if when is not None:
            console.print(f"{label:<11} {instant(when)}")
    known = f", acknowledged by {one.acknowledged}" if one.acknowledged else ""
    console.print(clean(f"{told}, {one.reminders} reminders{known}"))

"""`cumulant alerts`: what fires, who knows, and whether messages arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import EngineUnavailableError, OverloadedError, TerminalError, UndeliverableError, UsageError
from cumulant.flows.reports.terminal import clean, table
from cumulant.flows.reports.wording import instant

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.alerting.alerts import ReceiverTrial
    from cumulant.flows.alerting.views import AlertsView, AlertView, RefusedView

app = application(
    "alerts",
    "What fires, who knows of it, and whether messages arrive.",
    examples=["cumulant alerts list", "cumulant alerts ack 3fa2c1", "cumulant alerts test"],
)

Id = Annotated[str, typer.Argument(metavar="ID", help="An alert's id, or the beginning of it.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands in the event.")]


@command(
    app,
    operations=("alerts.list",),
    action="alerts.show",
    name="list",
    examples=["cumulant alerts list", "cumulant alerts list --ended --json"],
)
def list_(
    call: Invocation,
    ended: Annotated[bool, typer.Option("--ended", help="Also alerts that are over, the newest first.")] = False,
    model: Annotated[str, typer.Option(metavar="NAME", help="Only of this model.")] = "",
) -> None:
    """Show what fires or is pending, the most urgent first, silences, and how each receiver stands."""
    with call.api() as api:
        alerts = api.call("alerts.list", ended=ended, model=model)
    call.answer(alerts, lambda console: _print(console, alerts, model))


@command(app, operations=("alerts.show", "alerts.list"), action="alerts.show", examples=["cumulant alerts show 3fa2c1"])
def show(call: Invocation, name: Id) -> None:
    """Show one alert: what moved, since when, what it likely is, what to do next, and who knows."""
    with call.api() as api:
        alert = api.call("alerts.show", alert=name)
        heard = bool(api.call("alerts.list").receivers)
    call.answer(alert, lambda console: _print_one(console, alert, heard=heard))


@command(
    app,
    operations=("alerts.acknowledge",),
    action="alerts.steer",
    examples=["cumulant alerts ack 3fa2c1", "cumulant alerts ack 3fa2c1 --reason 'on it'"],
)
def ack(call: Invocation, name: Id, reason: Reason = "") -> None:
    """Acknowledge an alert: no more reminders; its end, or a higher level, is still sent."""
    with call.api() as api:
        alert = api.call("alerts.acknowledge", alert=name, reason=reason)
    call.answer(alert, lambda console: console.print(f"{alert.id}: acknowledged by {alert.acknowledged}"))


@command(
    app,
    operations=("alerts.silence", "alerts.unsilence"),
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
    span: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long: 2h, 7d.")] = None,
    reason: Reason = "",
    end: Annotated[str | None, typer.Option(metavar="ID", help="End this silence instead.")] = None,
) -> None:
    """Suppress messages about some alerts for a while; the alerts are recorded.

    The end of an alert is sent to its receivers. What still fires when a silence ends is sent then.
    Alertmanager receives all alerts and has silences of its own.
    """
    if (end is None) == (span is None):
        raise UsageError("a silence needs its length", hint="add --for 2h, or --end ID to end one")
    with call.api() as api:
        if end is not None:
            api.call("alerts.unsilence", silence=end)
            call.answer({"ended": end}, lambda console: console.print(f"the silence {end} is over"))
            return
        result = api.call("alerts.silence", span=span or "", model=model, rule=rule, subject=subject, reason=reason)
    added, some, alerts = result.silence, result.matching, result.alerts
    until = f"{added.until:%Y-%m-%d %H:%M} UTC"
    now = f"it matches {some} of the {alerts} alerts there are" if alerts else "there is no alert now"
    text = f"silence {added.id}: rule {rule}, subject {subject}, model {model}, until {until}; {now}"
    call.answer(added, lambda console: console.print(text, soft_wrap=True, markup=False))


@command(
    app,
    operations=("alerts.test",),
    action="alerts.test",
    name="test",
    examples=["cumulant alerts test", "cumulant alerts test --receiver slack-3fa2c1 --json"],
)
def try_(
    call: Invocation,
    receiver: Annotated[str, typer.Option(metavar="NAME", help="Only this one, as `alerts list` names it.")] = "",
) -> None:
    """Send a sample to each receiver of `monitoring.notify`, and show the result.

    Exit code 3 where one does not answer, 4 where one refuses, 2 where its address cannot be used.
    """
    with call.api() as api:
        receivers = api.call("alerts.test", receiver=receiver)
    call.answer({"receivers": receivers}, lambda console: _print_tested(console, receivers))
    faults = [tested for tested in receivers if not tested.taken]
    if faults:
        raise typer.Exit(max(map(_code, faults)))


@command(
    app,
    operations=("alerts.retry",),
    action="alerts.steer",
    examples=[
        "cumulant alerts retry",
        "cumulant alerts retry 69cb93fa58/notified/critical",
        "cumulant alerts retry --receiver slack-3fa2c1",
    ],
)
def retry(
    call: Invocation,
    message: Annotated[
        str, typer.Argument(metavar="[MESSAGE]", help="A refused message, or the beginning of its name.")
    ] = "",
    receiver: Annotated[str, typer.Option(metavar="NAME", help="Only of this one, as `alerts list` names it.")] = "",
) -> None:
    """Send now what waits and what was refused, without waiting for the next try.

    Exit code 3 where a receiver does not answer, 4 where it refuses.
    """
    with call.api() as api:
        retried = api.call("alerts.retry", message=message, receiver=receiver)
    call.answer(retried, lambda console: _say(console, retried.sentence))
    if retried.refused:
        raise typer.Exit(4)
    if any(state.failures for state in retried.receivers):
        raise typer.Exit(3)


@command(
    app,
    operations=("alerts.drop",),
    action="alerts.steer",
    examples=["cumulant alerts drop 69cb93fa58/notified/critical --reason 'sent by hand'"],
)
def drop(
    call: Invocation,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="A refused message, or the beginning of its name.")],
    reason: Reason = "",
) -> None:
    """Drop a message that its receiver refuses. The alert is unchanged, and an event records it."""
    with call.api() as api:
        dropped = api.call("alerts.drop", message=message, reason=reason)
    lines = [f"{message_.receiver}: dropped {message_.message}" for message_ in dropped]
    call.answer({"dropped": dropped}, lambda console: _say(console, *lines))


def _code(fault: ReceiverTrial) -> int:
    if fault.code in (EngineUnavailableError.code, OverloadedError.code):
        return 3
    return 4 if fault.code in (TerminalError.code, UndeliverableError.code) else 2


def _print_tested(console: Console, receivers: list[ReceiverTrial]) -> None:
    rows = [
        (tested.receiver, tested.url, "took it" if tested.taken else "did not", tested.answer) for tested in receivers
    ]
    console.print(table(["receiver", "url", "", ""], rows))


def _print(console: Console, overview: AlertsView, model: str) -> None:
    if overview.alerts:
        rows = [
            (row.id, row.level, _state(row), row.model, row.rule, row.subject, row.since) for row in overview.alerts
        ]
        console.print(table(["id", "level", "state", "model", "rule", "subject", "since"], rows))
    else:
        console.print(clean(f"nothing of {model} fires") if model else "nothing fires", markup=False)
    for row in overview.silences:
        matched = f"rule {row.rule}, subject {row.subject}, model {row.model}"
        why = f" ({row.reason})" if row.reason else ""
        _say(console, f"silence {row.id}: {matched}, until {row.until:%Y-%m-%d %H:%M} UTC, by {row.by}{why}")
    if overview.receivers:
        receivers = [
            (row.receiver, row.url, row.waiting, row.refused, row.left_out, row.fault or "–")
            for row in overview.receivers
        ]
        console.print(table(["receiver", "url", "waiting", "refused", "left out", "fault"], receivers))
    else:
        console.print("monitoring.notify names no receiver: alerts are in the events only", style="dim")
    _say(console, *map(_refused_line, overview.refused))
    console.print(
        f"{overview.spent} message{'s' * (overview.spent != 1)} of the budget of {overview.budget}", style="dim"
    )


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(clean(line), soft_wrap=True, markup=False)


def _refused_line(refused: RefusedView) -> str:
    state = f"cannot be delivered to {refused.receiver}" if refused.aside else f"refused by {refused.receiver}"
    tries = "1 try" if refused.tries == 1 else f"{refused.tries} tries"
    return (
        f'{refused.message} "{refused.title}": {state} since {refused.since:%Y-%m-%d %H:%M} UTC ({tries}, next '
        f"{refused.retry:%Y-%m-%d %H:%M} UTC): {refused.fault}"
    )


def _state(alert: AlertView) -> str:
    more = [
        word
        for word, so in (("silenced", alert.silenced), ("grouped", alert.grouped), ("known", alert.acknowledged))
        if so
    ]
    return f"{alert.status} ({', '.join(more)})" if more else alert.status


def _print_one(console: Console, alert: AlertView, *, heard: bool) -> None:
    console.print(
        clean(f"{alert.level}: {alert.rule} in {alert.subject} of {alert.model}, {_state(alert)}"), style="bold"
    )
    console.print(clean(alert.text), soft_wrap=True)
    notified = f"notified at level {alert.notified_level}" if alert.notified_level and heard else "not notified"
    notified += "" if heard else ", as monitoring.notify names no receiver"
    rows = [("first seen", alert.began), ("fired", alert.fired), ("last seen", alert.seen), ("over", alert.resolved)]
    for label, when in rows:
        if when is not None:
            console.print(f"{label:<11} {instant(when)}")
    known = f", acknowledged by {alert.acknowledged}" if alert.acknowledged else ""
    console.print(clean(f"{notified}, {alert.reminders} reminders{known}"))

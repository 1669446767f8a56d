"""`cumulant rollback`: all requests back to a version that was served before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.flows.reports.terminal import clean, warn

if TYPE_CHECKING:
    from rich.console import Console

app = application("rollback", "Send all requests to a version that was served before.")


@command(
    app,
    operations=("releases.roll_back",),
    action="release.rollback",
    examples=[
        "cumulant rollback flight-late --reason 'complaints from Denver'",
        "cumulant rollback --to 3 --reason 'the bug of version 5'",
    ],
)
def rollback(
    call: Invocation,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="The model's name; default: the project's.")] = "",
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the event.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="VERSION", help="Default: the champion while a candidate has requests, else the champion before."
        ),
    ] = "",
    within: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, max=600, help="How long to wait for a server that has to be started."),
    ] = 60.0,
) -> None:
    """Send all requests to a version that was served before, also weeks later, and end a release that is under way.

    Needs the state folder only: neither registry nor events. They are updated afterwards; where they cannot be reached,
    the controller of `cumulant up`, or `cumulant tick`, updates them later.
    """
    with call.api() as api, call.progress("rollback") as progress:
        result = api.call("releases.roll_back", model=model, reason=reason, to=to, within=within, progress=progress)

    def text(console: Console) -> None:
        instead = f", instead of {' and '.join(result.given_up)}" if result.given_up else ""
        console.print(clean(f"version {result.version} has all requests of {result.model}{instead}"))
        if not result.serving:
            console.print("the gateway does not run: it begins with this when it starts", style="dim")
        warn(console, [f"not recorded: {process}" for process in result.missed])
        if result.later:
            console.print("`cumulant up` and `cumulant tick` record it when that is possible", style="dim")
        if result.stored_features:
            console.print("`cumulant up --restart` gives it stored features of the newest data", style="dim")

    call.answer(result, text)

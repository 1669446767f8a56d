"""`cumulant session`: who is signed in to the console, one-time links, and the end of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.identities.sessions import SessionView

app = application(
    "session",
    "Sessions of the console: one-time links, who is signed in, and the end of a session.",
    examples=["cumulant session list", "cumulant session revoke 3fa2c1", "cumulant session link"],
)


@command(
    app,
    action="identities.session_link",
    examples=["cumulant session link", "cumulant session link --url http://127.0.0.1:8700"],
)
def link(
    call: Invocation,
    url: Annotated[
        str, typer.Option(metavar="URL", help="The console's address. Default: that of the running server.")
    ] = "",
) -> None:
    """Print a link that signs you in to the console on this machine, once, within 10 minutes."""
    from cumulant.flows.identities.api_address import console_url, running_url
    from cumulant.flows.identities.sign_in_links import create_link, link_url

    with call.project() as project:
        base = console_url(project, url)
        if not url and not project.sign_in.url and not running_url(project):
            call.note(f"no console of the project runs on this machine: `{call.line('api')}` starts one at {base}")
        address = link_url(base, create_link(project, principal=project.principal()))
    call.answer({"url": address}, lambda console: console.print(address, soft_wrap=True, markup=False, highlight=False))


@command(
    app,
    operations=("identities.sessions",),
    action="identities.session_list",
    name="list",
    examples=["cumulant session list", "cumulant session list --json"],
)
def list_(call: Invocation) -> None:
    """Show sessions: yours, and those of others where you may manage them."""
    with call.api() as api:
        sessions = api.call("identities.sessions")
    call.answer({"sessions": sessions}, lambda console: _print(console, sessions))


@command(
    app,
    operations=("identities.revoke_sessions",),
    action="identities.session_revoke",
    examples=["cumulant session revoke 3fa2c1", "cumulant session revoke --of user:ada --reason 'left the team'"],
)
def revoke(
    call: Invocation,
    session: Annotated[str, typer.Argument(metavar="[ID]", help="A session's id, or the beginning of it.")] = "",
    *,
    of: Annotated[str, typer.Option(metavar="PRINCIPAL", help="All sessions of this user: user:ada.")] = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is part of the event.")] = "",
) -> None:
    """End sessions: they are refused from the next request on."""
    with call.api() as api:
        ended = api.call("identities.revoke_sessions", session=session, of=of, reason=reason)

    def text(console: Console) -> None:
        for view in ended:
            console.print(f"{view.id}: session of {view.principal} ended")
        if not ended:
            console.print(f"{of} has no session", markup=False)

    call.answer({"sessions": ended}, text)


def _print(console: Console, sessions: list[SessionView]) -> None:
    from cumulant.flows.reports.terminal import table

    rows = [
        (view.id, view.principal, view.method, f"{view.opened:%Y-%m-%d %H:%M}", f"{view.used:%Y-%m-%d %H:%M}")
        for view in sessions
    ]
    if rows:
        console.print(table(["id", "user", "signed in by", "opened", "used"], rows))
    else:
        console.print("nobody is signed in")

"""`cumulant login`: let this command line act as you at a server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

app = application("login", "Sign in to a server.", examples=["cumulant login --server https://cumulant.example.com"])


@command(
    app,
    action=None,
    examples=["cumulant login --server https://cumulant.example.com", "cumulant login --server URL --of shop --json"],
)
def login(
    call: Invocation,
    *,
    server: Annotated[str, typer.Option(metavar="URL", help="The address of the server.")],
    of: Annotated[str, typer.Option(metavar="NAME", help="The project there; default: its first.")] = "",
) -> None:
    """Sign in to a server: open the shown address in a browser, and confirm the code there.

    The token is saved for your user, and expires with a session's longest time.
    """
    from cumulant.core.system.saved_tokens import save_token
    from cumulant.server.client.device_flow import device_token

    call.output.interrupted = "you are not signed in: the code is of no use now, and the same command shows a new one"
    answer = device_token(server, {"project": of} if of else {}, call.note)
    path = save_token(server, answer.access_token, os.environ)
    hours = answer.expires_in / 3600
    document = {"server": server, "expires_in": answer.expires_in, "file": str(path)}
    call.answer(document, lambda console: console.print(f"signed in to {server} for {hours:g} hours", soft_wrap=True))

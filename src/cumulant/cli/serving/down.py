"""`cumulant down`: end the processes that serve a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

app = application("down", "End the processes that serve.")


@command(app, action="stack.down", examples=["cumulant down", "cumulant down --env staging"])
def down(call: Invocation) -> None:
    """End everything that `cumulant up` started, also what a killed supervisor left; requests under way are finished.

    The controller ends first, then the gateway, then the servers. Where nothing runs, nothing is done.
    """
    from cumulant.flows.stack import lifecycle

    with call.project() as project, call.progress("down") as progress:
        count = lifecycle.down(project, principal=project.principal(), progress=progress)

    def text(console: Console) -> None:
        console.print(f"{count} processes have ended" if count else "nothing was running")

    call.answer({"ended": count}, text)

"""`cumulant ps`: the processes that serve a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.console import Console

app = application("ps", "The processes that serve.")


@command(app, operations=("stack.detail",), action="stack.show", examples=["cumulant ps", "cumulant ps --json"])
def ps(call: Invocation) -> None:
    """Show the processes that `cumulant up` keeps running: their state, restarts in the last minute, last words.

    With `deploy: hosts://` also the machines and what each of them serves.
    """
    from cumulant.cli.serving.stack_table import (
        document,
        host_documents,
        hosts_table,
        shares_text,
        table,
        unserved_text,
    )

    with call.api() as api:
        detail = api.call("stack.detail")
    status, shares, hosts = detail.status, detail.shares, detail.hosts
    unread, missing = detail.hosts_unknown, detail.missing

    def text(console: Console) -> None:
        if status is None:
            console.print("nothing runs; `cumulant up` starts it")
        else:
            console.print(table(status))
            if shares and status.running:
                console.print(shares_text(shares), markup=False)
        if hosts:
            console.print(hosts_table(hosts))
            if unserved := unserved_text(shares, hosts):
                console.print(unserved, markup=False, style="red")
            if missing:
                console.print(missing, markup=False, soft_wrap=True)
        if unread:
            console.print(f"the machines are not known: {unread}", markup=False, style="red")

    more: dict[str, object] = {"shares": shares} if shares else {}
    more |= {"hosts": host_documents(hosts)} if hosts else {}
    more |= {"hosts_unknown": unread} if unread else {}
    more |= {"notes": [missing]} if missing else {}
    call.answer(document(status) | more, text)

"""`cumulant up`: the champion behind a gateway, all processes under one supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import EngineUnavailableError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.stack.lifecycle import StartedStack

app = application("up", "Serve the champion behind a gateway.")

_POLL_SECONDS = 0.5


class Role(StrEnum):
    """What a machine can do, as `stack_processes.ROLES`, which is loaded later."""

    gateway = "gateway"
    servers = "servers"
    controller = "controller"


@command(
    app,
    action="stack.up",
    examples=[
        "cumulant up --detach",
        "cumulant up --console 127.0.0.1:8700",
        "cumulant up --observe",
        "cumulant up --restart",
        "cumulant up flight-late/3 --http 127.0.0.1:9000",
    ],
)
def up(
    call: Invocation,
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            help="What serves first: NAME@ALIAS or NAME/VERSION; default: the champion, else the newest that passed.",
        ),
    ] = "",
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", show_default=False, help="Of the gateway, instead of serving.http.")
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow an address that others can reach, without a token.")
    ] = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="Run Prometheus, and Alertmanager where it is installed, beside it.")
    ] = False,
    console: Annotated[
        str,
        typer.Option("--console", metavar="HOST:PORT", help="Run the console and the API there: 127.0.0.1:8700."),
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return when it answers; `down` ends it.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside files of the state that are damaged, and make them again.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Give a running stack the present settings; no request is lost.")
    ] = False,
    role: Annotated[
        list[Role] | None,
        typer.Option(
            show_default=False, help="What this machine does with `deploy: hosts://`; repeatable. Default: everything."
        ),
    ] = None,
    advertise: Annotated[
        str,
        typer.Option(
            metavar="HOST", show_default=False, help="Address of this machine where gateways reach its servers."
        ),
    ] = "",
) -> None:
    """Serve the champion behind a gateway, so that releases can share its requests with a candidate.

    Starts the gateway, a server a version and the release controller, and restarts what ends. Without --detach it
    stays, with a live table on a terminal, and Ctrl-C or SIGTERM ends everything, requests under way first. What
    served before serves again, whatever changed in the registry, with the present settings: releases and rollbacks
    change it. --restart replaces the servers of a running stack one by one, each once the new one is ready.
    With `deploy: hosts://` each machine does its roles, and reaches the others through the journal alone.
    """
    from cumulant.cli.serving.stack_table import document
    from cumulant.flows.stack import lifecycle

    if restart:
        further = insecure or detach or repair or observe
        _check_alone(model, http=http, others=further or bool(role or advertise or console))
        _restart(call)
        return
    with call.project() as project:
        who, state = project.principal(), project.state
        with call.progress("up") as progress:
            started = lifecycle.up(
                project,
                model,
                principal=who,
                http=http,
                insecure=insecure,
                observe=observe,
                console=console,
                detached=detach,
                repair=repair,
                roles=[chosen.value for chosen in role or ()],
                advertise=advertise,
                progress=progress,
            )
    sign_in = f"{call.line('session link')} prints a link to sign in to the console" if console else ""
    try:
        notes = {"notes": started.notes} if started.notes else {}
        call.answer(document(started.status) | notes, lambda shown: _show(shown, started, detach, sign_in))
        if not detach:
            _stay(call, started.process, state)
    except BaseException:
        _end(started.process)
        raise


def _check_alone(model: str, *, http: str, others: bool) -> None:
    if model or http or others:
        raise UsageError(
            "--restart changes servers that run, and takes no other option",
            subject="--restart",
            hint="the address and the model change with `cumulant down` and `cumulant up`",
        )


def _restart(call: Invocation) -> None:
    from cumulant.cli.serving.stack_table import document, table
    from cumulant.flows.stack.restart import restart as flow

    with call.project() as project, call.progress("restart") as progress:
        done = flow(project, principal=project.principal(), progress=progress)

    def text(console: Console) -> None:
        for note in done.notes or ("the settings are the same as before",):
            console.print(note, soft_wrap=True)
        console.print(table(done.status))

    call.answer(document(done.status) | {"notes": done.notes}, text)


def _show(console: Console, started: StartedStack, detached: bool, sign_in: str) -> None:
    from cumulant.cli.serving.stack_table import table

    for note in started.notes:
        console.print(note, soft_wrap=True)
    if detached or not console.is_terminal:
        console.print(table(started.status))
    if sign_in:
        console.print(sign_in, style="dim", soft_wrap=True)
    console.print("`cumulant down` ends it" if detached else "stop with Ctrl-C", style="dim")
    console.file.flush()


def _stay(call: Invocation, process: subprocess.Popen[bytes], state: Path) -> None:
    """Wait until the supervisor ends, by itself or by a signal to this process."""
    try:
        if not call.json and call.output.console().is_terminal:
            _watch(call.output.console(), process, state)
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        _end(process)
    if process.returncode != 0:
        raise EngineUnavailableError(
            f"the supervisor ended with code {process.returncode}, and everything with it",
            hint="`cumulant up` starts it again",
        )


def _watch(console: Console, process: subprocess.Popen[bytes], state: Path) -> None:
    from rich.live import Live

    from cumulant.cli.serving.stack_table import table
    from cumulant.flows.stack.status import read_status

    with Live(console=console, auto_refresh=False) as live:
        while process.poll() is None:
            status = read_status(state)
            if status is not None:
                live.update(table(status), refresh=True)
            time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate it and wait, whatever further signals come."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    while process.poll() is None:
        with suppress(KeyboardInterrupt):
            process.wait()

"""`cumulant api`: the HTTP API of projects, and their console."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import UsageError, missing_part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket

    from rich.console import Console

    from cumulant.project.project import Project

app = application("api", "The HTTP API of projects, and their console.")

#: seconds after which a caller is told that the journal is away; each that waits holds one of the server's threads
_JOURNAL_WAIT = 5.0


class ApiOpened(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API answers. `login`: a link that signs in once, where the machine's user needs no provider."""

    url: str
    projects: tuple[str, ...]
    login: str | None


@command(
    app,
    action="project.serve",
    examples=[
        "cumulant api",
        "cumulant api --http 127.0.0.1:0 --json",
        "cumulant api --with ../churn --with ../fraud",
    ],
)
def api(
    call: Invocation,
    http: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen; off loopback callers need API tokens, or a provider in `sign_in`.",
        ),
    ] = "127.0.0.1:8700",
    with_: Annotated[
        list[Path] | None, typer.Option("--with", metavar="DIR", help="A further project. May be repeated.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name by which callers reach it. May be repeated."),
    ] = None,
    no_link: Annotated[
        bool, typer.Option("--no-link", help="Print no link to sign in; `cumulant session link` prints one.")
    ] = False,
) -> None:
    """Serve the API and the console of this project, until interrupted.

    On loopback the printed link signs you in, once; `cumulant session link` prints another. Programs send an API
    token (`cumulant token create`). The paths of the API are at /v1/openapi.json.
    """
    from cumulant.core.network.hosts import is_loopback
    from cumulant.serving.sockets import bind, split_address

    host, port = split_address(http)
    with ExitStack() as stack:
        project = stack.enter_context(call.project())
        projects = _by_name([project, *(stack.enter_context(load_served(call, folder)) for folder in with_ or ())])
        listener = stack.enter_context(bind(host, port, insecure=True))
        serve_projects(
            call, projects, listener, local=is_loopback(host), hosts=tuple(allow_host or ()), link=not no_link
        )


def serve_projects(
    call: Invocation,
    projects: Mapping[str, Project],
    listener: socket,
    *,
    local: bool,
    hosts: tuple[str, ...] = (),
    link: bool = True,
) -> None:
    """Answer on a bound socket until interrupted; the address is printed, with a link to sign in where there are any.

    The first project's `sign_in` counts.

    Raises:
        MissingPartError: the extra `console` is not installed.
    """
    try:
        from cumulant.console.rendering import compile_templates
        from cumulant.console.routes import console_routes
        from cumulant.server.serve import serve
        from cumulant.server.sign_in.sign_in import SignIn
    except ModuleNotFoundError as error:
        raise missing_part(error.name or "starlette", "console") from None
    from cumulant.flows.identities.api_address import note_address, remove_address
    from cumulant.flows.identities.sign_in_links import create_link, link_url
    from cumulant.serving.sockets import url_of

    for each in projects.values():
        each.journal_wait = _JOURNAL_WAIT
    first = next(iter(projects.values()))
    sign_in = SignIn(projects, local=local, hosts=hosts)

    def announce() -> None:
        url = url_of(listener)
        for each in projects.values() if local else ():
            note_address(each, url)
        code = create_link(first, principal=first.principal()) if sign_in.has_links and link else None
        opened = ApiOpened(url=url, projects=tuple(projects), login=None if code is None else link_url(url, code))
        call.answer(opened, lambda console: _print(console, opened))

    try:
        serve(
            projects,
            listener,
            authenticate=sign_in.middleware,
            pages=[*sign_in.routes(), *console_routes()],
            announce=announce,
            prepare=compile_templates,
        )
    finally:
        for each in projects.values():
            remove_address(each)


def load_served(call: Invocation, folder: Path) -> Project:
    """The project in a folder.

    Raises:
        ProjectFileError: the file has faults.
        RefusedError: the user may not serve it.
    """
    from cumulant.flows.ledger.actions import check
    from cumulant.project.file.loading import load

    project = load(folder, environment=call.environment, via="cli")
    check(project, project.principal(), "project.serve")
    return project


def _by_name(projects: list[Project]) -> dict[str, Project]:
    """Raises UsageError: two have one name."""
    by_name = {each.name: each for each in projects}
    if len(by_name) < len(projects):
        names = [each.name for each in projects]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f'two projects are named "{twice}"', subject="--with", hint="serve them by two processes, on two ports"
        )
    return by_name


def _print(console: Console, opened: ApiOpened) -> None:
    names = ", ".join(opened.projects)
    console.print(f"{names}: the console and the API are at {opened.url}", style="bold", soft_wrap=True)
    if opened.login is not None:
        console.print(f"sign in once, within ten minutes: {opened.login}", soft_wrap=True)
    console.print(f"paths of the API: {opened.url}/v1/openapi.json; stop with Ctrl-C", style="dim", soft_wrap=True)
    console.file.flush()

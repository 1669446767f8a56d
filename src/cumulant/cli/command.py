"""How a command is declared: its own parameters, the options that every command has, and its examples.

A command function takes an `Invocation` first and its own parameters after it:

    @command(app, action="model.train", examples=["cumulant train --quick"])
    def train(call: Invocation, quick: Annotated[bool, typer.Option(help="...")] = False) -> None: ...
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from cumulant.cli.invocation import Invocation
from cumulant.cli.local_commands import SERVER, check_server
from cumulant.cli.output import wants_colour
from cumulant.cli.process_settings import prepare_for
from cumulant.core.errors import UsageError
from cumulant.flows.ledger.actions import find_action

WIDTH = 100
#: the exit code of a wrong command line
_USAGE = 2

_CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
_COMMON = [
    inspect.Parameter(
        "json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else.")],
    ),
    inspect.Parameter(
        "project",
        inspect.Parameter.KEYWORD_ONLY,
        default="",
        annotation=Annotated[
            str, typer.Option("--project", metavar="DIR", help="Folder of cumulant.yaml; default: here, or above.")
        ],
    ),
    inspect.Parameter(
        "env",
        inspect.Parameter.KEYWORD_ONLY,
        default="local",
        annotation=Annotated[str, typer.Option("--env", metavar="NAME", help="Environment of the project file.")],
    ),
]

_OF_SERVER = (
    "Of the project on the server at this address, as `cumulant login` signed you in; `--project` then names it there."
)
_OF_MACHINE = "Refused: the command works on the project's machine."


def _server_option(*, takes: bool, of_project: bool) -> inspect.Parameter:
    """`--server`, which every command knows, so that one that works on the machine alone says what to do instead.

    Commands without a project ignore the variable.
    """
    note = typer.Option(
        "--server",
        metavar="URL",
        envvar=SERVER if of_project else None,
        show_envvar=takes,
        hidden=not takes,
        help=_OF_SERVER if takes else _OF_MACHINE,
    )
    return inspect.Parameter("server", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, note])


class _PlainHelp:
    """Help as plain text: bold headings on a terminal, examples as written, never wider than the window."""

    epilog: str | None

    def get_help(self, ctx: Any) -> str:
        text: str = super().get_help(ctx)  # type: ignore[misc]
        return with_bold_headings(text)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        del ctx
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")


class Command(_PlainHelp, TyperCommand):
    """One command's parser and help."""


class CommandGroup(_PlainHelp, TyperGroup):
    """The parser and help of a command that has commands of its own.

    Without one of them it shows its help and ends as a wrong command line does, so that a script whose word is empty
    does not take it for done.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.parent is not None and not ctx.resilient_parsing and only_common(args):
            if ctx.obj.json:
                raise UsageError(
                    f"{ctx.command_path} needs one of its commands",
                    subject=ctx.command_path,
                    hint=f"{', '.join(self.commands)}; `{ctx.command_path} --help` says what each does",
                )
            print(self.get_help(ctx), file=sys.stderr)
            ctx.exit(_USAGE)
        return list(super().parse_args(ctx, args))


def only_common(arguments: Sequence[str]) -> bool:
    """Whether a command line holds nothing but options that every command has."""
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--project", "--env", "--server"):
            next(rest, None)
        elif argument != "--json" and not argument.startswith(("--project=", "--env=", "--server=")):
            return False
    return True


def with_bold_headings(text: str) -> str:
    """`text` with its headings in bold, where standard output is a terminal that wants colour."""
    if not wants_colour(sys.stdout):
        return text
    lines = text.splitlines()
    return "\n".join(f"\x1b[1m{line}\x1b[0m" if _is_heading(line) else line for line in lines)


def _is_heading(line: str) -> bool:
    return line.endswith(":") and not line.startswith(" ")


def application(name: str, summary: str, *, examples: Sequence[str] = ()) -> typer.Typer:
    """An empty Typer application for one module of commands; with more than one command it becomes a group."""
    return typer.Typer(
        name=name,
        help=summary,
        cls=CommandGroup,
        epilog="\n".join(examples) or None,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": WIDTH, "help_option_names": ["--help", "-h"]},
    )


def command(
    app: typer.Typer,
    *,
    action: str | None,
    examples: Sequence[str],
    name: str | None = None,
    operations: Sequence[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function as a command of `app`; `action`: the permission it needs, None without a project.

    `operations`: those of the API that the command calls by `Invocation.api`, so that it takes `--server`; of one that
    has none, `local_commands.REASONS` says why.

    Raises:
        TerminalError: the action is not declared.
    """
    if action is not None:
        find_action(action)

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        first, *own = inspect.signature(function).parameters.values()
        if hints[first.name] is not Invocation or not examples:
            raise TypeError(f"{function.__name__} must take an Invocation first and have an example")
        parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own]
        own_server = "server" in hints
        parameters += [*_COMMON]
        parameters += [] if own_server else [_server_option(takes=bool(operations), of_project=action is not None)]
        parameters += [_CONTEXT]

        def run(*, context: typer.Context, json: bool, project: str, env: str, **options: Any) -> None:
            del json  # the root has read it already: it decides where standard output goes
            server = "" if own_server else options.pop("server")
            if server:
                check_server(context.command_path, env, takes=bool(operations))
            prepare_for(action)
            call = Invocation(
                directory=project or None, environment=env, action=action, output=context.obj, server=server
            )
            function(call, **options)

        run.__name__ = function.__name__
        run.__doc__ = function.__doc__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        settings = {"max_content_width": WIDTH, "help_option_names": ["--help", "-h"]}
        run.operations = tuple(operations)  # type: ignore[attr-defined]
        app.command(name, cls=Command, epilog="\n".join(examples), context_settings=settings)(run)
        return function

    return register

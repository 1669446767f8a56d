"""The one place where an ending becomes an exit code and a text.

0    done
1    a gate refused (RefusedError)
2    the command line, the project file or the input must change (UsageError)
3    the same command may work later (RetryableError)
4    trying again will not help (TerminalError), or an unexpected error
130  interrupted by Ctrl-C; 143: terminated (SIGTERM); 141: the output was closed by its reader
"""

from __future__ import annotations

import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cumulant.core.errors import (
    CumulantError,
    ProjectFileError,
    RefusedError,
    RetryableError,
    UsageError,
    did_you_mean,
    is_interrupt,
    missing_part,
)

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.cli.output import CommandOutput

INTERRUPTED = 130
PIPE_CLOSED = 141
TERMINATED = 143
#: Typer has carried its parser inside since 0.26 and used Click's before: its usage error is the base of a public one.
PARSER_ERROR: type[BaseException] = typer.BadParameter.__mro__[1]
PAGE = "docs/reference/errors.md"
#: options of every command, which `cumulant` alone has not
_AFTER_COMMAND = frozenset({"--json", "--project", "--env", "--debug"})
_NO_NUMBER = re.compile(r"is not a valid (int|float)(?:eger)?(?: range)?\b")
_NO_COMMAND = re.compile(r"No such command '(.+)'")
#: modules whose absence means an extra is not installed
_EXTRAS = {"onnxruntime": "serve", "httptools": "serve", "uvloop": "serve", "obstore": "objects"}


def exit_code(error: BaseException) -> int:
    for kind, code in ((RefusedError, 1), (UsageError, 2), (PARSER_ERROR, 2), (RetryableError, 3)):
        if isinstance(error, kind):
            return code
    return 4


def finish(error: BaseException, output: CommandOutput, *, debug: bool) -> int:
    """Report how a command ended and return its exit code."""
    if _reader_gone(error):
        output.detach()
        return PIPE_CLOSED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 4
    if isinstance(error, typer.Abort) or is_interrupt(error):
        output.notices().print(f"interrupted; {output.redact(output.interrupted)}", soft_wrap=True)
        return INTERRUPTED
    known = as_known(error).reworded(output.redact).reworded(_from_here)
    if debug:
        sys.stderr.write(output.redact("".join(traceback.format_exception(error))))
    if output.json and not output.documents:
        output.document({"error": as_document(known, error)})
    else:
        show(known, output.notices(), debug=debug)
    return exit_code(known)


def _from_here(text: str) -> str:
    with suppress(OSError):  # the working directory may be gone
        return re.sub(rf"(?<![\w/]){re.escape(str(Path.cwd()))}/", "", text)
    return text


def _reader_gone(error: BaseException | None) -> bool:
    """Whether the output was closed by its reader (`cumulant ... | head`)."""
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__context__ if isinstance(error, SystemExit) else None
    return False


def as_known(error: BaseException) -> CumulantError:
    """`error` itself if it is a CumulantError, else one that explains it to a user."""
    if isinstance(error, CumulantError):
        return error
    if isinstance(error, PARSER_ERROR):
        return _from_parser(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("cumulant"):
        module = error.name.partition(".")[0]
        return missing_part(module, _EXTRAS.get(module, "local"))
    if isinstance(error, MemoryError):
        return UsageError(
            "the machine has too little memory for this",
            subject="resources.memory",
            hint="set resources.memory lower, so that data are checked and features computed in smaller parts; train "
            "on fewer rows (training.since); or use a larger machine",
        )
    return UnexpectedError(
        f"{type(error).__name__}: {error}".rstrip(": "),
        hint="run it again with --debug for the traceback; if it stays, please report it",
    )


class UnexpectedError(CumulantError):
    """An error that is not a CumulantError; the traceback is shown with `--debug`."""

    code = "unexpected"


def as_document(known: CumulantError, error: BaseException) -> dict[str, object]:
    fields = {"exit_code": exit_code(known), "page": page(known)} | known.as_dict()
    return fields | {"message": str(known), "type": type(error).__name__}


def page(error: CumulantError) -> str:
    return f"{PAGE}#{error.code}"


def show(error: CumulantError, console: Console, *, debug: bool) -> None:
    """What happened, to what, what to do next, and where to read more."""
    from rich.text import Text

    from cumulant.flows.reports.terminal import clean

    problems = error.problems if isinstance(error, ProjectFileError) and len(error.problems) > 1 else ()
    message = error.message.splitlines()[0] if problems else error.message  # the other lines are the problems
    console.print(Text.assemble(("error: ", "bold red"), clean(message)), soft_wrap=True)
    for file, line, problem in problems:
        place = f"{file}:{line}" if line else file
        console.print(Text.assemble("  ", (clean(place), "bold"), "  ", clean(problem)), soft_wrap=True)
    lines = [("subject", error.subject), ("next", error.hint), ("read", f"{error.code} in {page(error)}")]
    for label, text in lines:
        if text:
            console.print(Text.assemble("  ", (f"{label:<8}", "dim"), clean(text)), soft_wrap=True)
    if error.retryable and not debug:
        console.print(Text.assemble("  ", (f"{'retry':<8}", "dim"), "the same command may work later"), soft_wrap=True)


def _from_parser(error: BaseException) -> UsageError:
    message = str(getattr(error, "format_message", lambda: str(error))())
    head, hint = message.partition(". Did you mean ")[0], None
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "cumulant"
    if (option := getattr(error, "option_name", None)) and context is not None and "o such option" in head:
        head, known = (
            f"no such option: {option}",
            [
                name
                for parameter in context.command.get_params(context)
                for name in parameter.opts
                if name.startswith("-")
            ],
        )
        hint = _other_place(str(option), known, path) or did_you_mean(str(option), known)
    elif (missing := _NO_COMMAND.match(head)) and context is not None:
        hint = did_you_mean(missing[1], context.command.list_commands(context))
    head = _NO_NUMBER.sub(lambda match: f"is no {'whole number' if match[1] == 'int' else 'number'}", head)
    return UsageError(_lower_first(head.rstrip(".")), subject=path, hint=hint or f"{path} --help")


def _other_place(option: str, known: list[str], path: str) -> str | None:
    if path == "cumulant" and option in _AFTER_COMMAND:
        return f"write it after a command: cumulant ps {option}"
    if option == "--port" and "--http" in known:
        return "write the address: --http 127.0.0.1:PORT"
    return None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]

"""`cumulant events export`: the events in a file, as they are or for a collector of security events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from cumulant.cli.command import command
from cumulant.cli.invocation import Invocation
from cumulant.core.errors import StorageError, UsageError
from cumulant.core.system.atomic_files import atomic_draft

Format = Literal["json", "ocsf"]
KIND_HELP = "Only this kind; with a last . or * all that begin so; may be repeated."


def declare(app: typer.Typer) -> None:
    command(
        app,
        operations=("events.export",),
        action="events.export",
        name="export",
        examples=[
            "cumulant events export events.jsonl",
            "cumulant events export --run 20261124T101500-3fa2c1 -",
            "cumulant events export --format ocsf --kind access.refused refused.jsonl",
        ],
    )(_export)


def _export(
    call: Invocation,
    *,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A file of JSON lines; - for standard output.")],
    kind: Annotated[list[str] | None, typer.Option("--kind", metavar="KIND", help=KIND_HELP)] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only the events of one run.")] = None,
    after: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only events after this one.")] = 0,
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="json: events with their hashes, for verification. ocsf: OCSF 1.4 in CloudEvents 1.0."
        ),
    ] = "json",
) -> None:
    """Write events as JSON lines: with their hashes, so that others can verify them, or as OCSF.

    A chain that does not hold is exported too, with a warning.
    """
    if str(out) == "-" and call.json:
        raise UsageError("standard output is that of --json", subject="-", hint="leave --json out, or name a file")
    with call.api() as api:
        lines = api.lines("events.export", format=format_, kind=tuple(kind or ()), run=run or "", after=after)
        if str(out) == "-":
            console = call.output.console()
            for line in lines:
                console.file.write(line.decode() + "\n")
            return
        count = _write(out, lines)
    what = "events" if format_ == "json" else "records"
    call.answer({"file": str(out), what: count}, lambda console: console.print(f"{count:,} {what} in {out}"))


def _write(path: Path, lines: Iterator[bytes]) -> int:
    """Write the lines to a file, which is as it was where they end too early; how many there are."""
    count = 0
    try:
        target = path.resolve()
        # As given, not resolved: /dev/stdout leads to a pipe, whose name is none of a file.
        regular = path.is_file() or not path.exists()
        with atomic_draft(target, durable=False) if regular else nullcontext(path) as draft, draft.open("wb") as stream:
            for line in lines:
                stream.write(line + b"\n")
                count += 1
    except OSError as error:
        raise StorageError(f"the export could not be written: {error.strerror}", subject=str(path)) from None
    return count
